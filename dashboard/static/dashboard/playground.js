// One-click examples: fill both texts and ask.
"use strict";

for (const button of document.querySelectorAll("[data-first]")) {
    button.addEventListener("click", () => {
        const form = document.getElementById("mw-playground");
        form.elements.first.value = button.dataset.first;
        form.elements.second.value = button.dataset.second;
        form.requestSubmit();
    });
}
