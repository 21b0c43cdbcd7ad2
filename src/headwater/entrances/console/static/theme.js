// Runs before the page is drawn, so that nobody sees the other theme flash.
(() => {
  const chosen = localStorage.getItem("headwater.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
