// Starts the page: contents, theme, then every section that is there.

/** Mark the section that is being read in the contents. */
function followReading() {
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const first = [...links.keys()].find((id) => seen.has(id));
      for (const [id, link] of links) {
        if (id === first) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-10% 0px -70% 0px" },
  );
  for (const id of links.keys()) watch.observe(byId(id));
  // Where there is little room the contents begin closed.
  if (innerWidth < 900) document.querySelector(".contents details").open = false;
}

/** Let the reader choose between light and dark; what the system says holds until then. */
function offerTheme(redraw) {
  const root = document.documentElement;
  const button = byId("theme");
  const tell = () => {
    button.lastElementChild.textContent = isDark() ? "Light" : "Dark";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
}

async function start() {
  document.body.append(probe);
  followReading();
  addEventListener("scroll", () => tip.hide(), { passive: true });
  const plots = [];
  offerTheme(() => plots.forEach((plot) => plot.draw()));
  if (has("errors")) drawErrors();
  if (has("failures")) drawFailures();
  if (has("categories")) drawCategories();
  if (has("policies")) drawPolicies();
  if (has("confidence")) drawConfidence();
  if (has("weights")) drawWeights();
  const cloud = has("diversity") ? await loadCloud() : null;
  if (cloud) plots.push(new CloudPlot(cloud));
  if (has("pareto")) drawPareto(cloud);
  new ItemBrowser(await Items.load());
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  const place = byId("trouble");
  place.textContent = `Part of this page could not be drawn (${error.message}). It needs a browser of 2024 or later.`;
  place.hidden = false;
  document.documentElement.dataset.ready = "failed";
  throw error;
});
