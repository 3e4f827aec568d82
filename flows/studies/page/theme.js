const page = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
const now = () => page.dataset.theme ?? (dark.matches ? "dark" : "light");
const show = () => { button.textContent = now() === "dark" ? "Light" : "Dark"; };
button.addEventListener("click", () => { page.dataset.theme = now() === "dark" ? "light" : "dark"; show(); });
dark.addEventListener("change", show);
button.hidden = false;
show();
