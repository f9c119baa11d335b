
// --- which page is shown: #L18H6 a head, #L11N584 a neuron, anything else a place on the first page

const title = document.title;
let left = 0;        // how far the page was scrolled when it was left for a head or neuron
let followed = false; // was the last change of place a click on a link?

// The head or neuron that the address names, if there is such a one.
function named() {
  const found = /^#(L\d+[HN]\d+)$/i.exec(location.hash);
  const site = found ? found[1].toUpperCase() : "";
  return number.has(site) || isNeuron(site) ? site : null;
}

function route() {
  const site = named();
  const before = !headPage.hidden;
  headPage.hidden = !site;
  document.body.classList.toggle("on-head", Boolean(site));
  document.title = site ? `${site} · ${title}` : title;
  if (site) {
    headPage.replaceChildren(...(number.has(site) ? pageOf(site) : pageOfNeuron(site)));
    scrollTo({ top: 0, behavior: "instant" });
    headPage.querySelector("h1").focus({ preventScroll: true });
  } else {
    const target = followed && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
    if (before) {
      dispatchEvent(new Event("resize")); // figures that were hidden
      if (target) target.scrollIntoView({ behavior: "instant" });
      else scrollTo({ top: left, behavior: "instant" });
    }
  }
  followed = false;
}

document.addEventListener("click", (event) => {
  if (headPage.hidden) left = scrollY;
  if (event.target.closest && event.target.closest("a[href^='#']")) followed = true;
});
addEventListener("hashchange", route);
route();
