// Runs in the head of every page, before the theme's FontAwesome and before the widget player.

// FontAwesome replaces <i> by <svg>; the Play widget then looks for its <i>, fails, and the picture stands still.
// "nest" puts the <svg> inside the <i>; kn.css hides it in Play buttons, which bring their own icon font.
window.FontAwesomeConfig = { autoReplaceSvg: "nest" };

// embed.js calls MathJax as version 2 had it; without this every label on a page with formulas is an error.
{
  let mathjax;
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => mathjax,
    set(value) {
      mathjax = value;
      if (value && !value.Hub) Object.defineProperty(value, "Hub", { value: { Queue() {} } });
    },
  });
}

// Where embed.js finds its icon fonts.
window.__jupyter_widgets_assets_path__ = new URL("vendor/", document.currentScript.src).href;

// Names and values that ipywidgets shows to the eye but not to assistive technology.
(() => {
  "use strict";

  const set = (element, name, value) => {
    if (element && value && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  function label(root) {
    for (const slider of root.querySelectorAll(".widget-slider")) {
      const handle = slider.querySelector(".noUi-handle");
      set(handle, "aria-label", slider.querySelector(".widget-label")?.textContent.trim());
      slider.querySelector(".widget-readout")?.removeAttribute("contenteditable"); // typing there does nothing
      set(handle, "aria-valuetext", slider.querySelector(".widget-readout")?.textContent.trim());
    }
    for (const group of root.querySelectorAll(".widget-toggle-buttons")) {
      set(group, "role", "group");
      set(group, "aria-label", group.querySelector(".widget-label")?.textContent.trim());
      for (const button of group.querySelectorAll("button"))
        set(button, "aria-pressed", String(button.classList.contains("mod-active")));
    }
    for (const play of root.querySelectorAll(".widget-play"))
      for (const button of play.querySelectorAll("button")) {
        const icon = button.querySelector("i")?.className ?? "";
        set(button, "aria-label", ["play", "pause", "stop", "repeat"].find((word) => icon.includes("fa-" + word)));
      }
    // A bibliography entry's role is deprecated, and its list then has no items.
    for (const entry of root.querySelectorAll('[role="doc-biblioentry"]')) set(entry, "role", "listitem");
    for (const stack of root.querySelectorAll(".kn-stack")) set(stack, "aria-live", "polite");
  }

  document.addEventListener("DOMContentLoaded", () => {
    let due = false;
    const later = () => {
      if (due) return;
      due = true;
      requestAnimationFrame(() => { due = false; label(document); });
    };
    new MutationObserver(later).observe(document.body, {
      subtree: true, childList: true, characterData: true, attributeFilter: ["class"],
    });
    later();
  });
})();
