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

// On a phone the answer is below the form: bring it into sight.
document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "mw-answer") {
        event.detail.target.scrollIntoView({ block: "nearest" });
    }
});
