(() => {
  document.documentElement.classList.add("scripted");
  const slices = document.querySelector(".slices");
  if (slices) showSlices(slices, JSON.parse(document.getElementById("records").textContent).tables);
  const keys = { j: "next", k: "previous" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !(event.key in keys)) return;
    if (!document.getElementById("shortcuts").checked) return;
    document.getElementById(keys[event.key])?.click();
  });
})();
