// The theme hides the page until its script has run, and what is hidden takes no focus by itself.
"use strict";

addEventListener("load", () => document.querySelector("#login-form [autofocus]").focus());
