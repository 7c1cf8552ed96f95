// A field above each long table (class kn-search) that hides the rows which lack one of the words typed. Without
// JavaScript there is no field, and the whole table is shown.
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  for (const box of document.querySelectorAll(".kn-search")) {
    const rows = [...box.querySelectorAll("tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const label = document.createElement("label"), field = document.createElement("input");
    const count = document.createElement("output");
    field.type = "search";
    field.placeholder = "words, all of which a row must contain";
    label.append("Search", field);
    box.querySelector(".kn-scroll").before(label, count);
    const search = () => {
      const words = field.value.toLowerCase().split(/\s+/);
      rows.forEach((row, k) => { row.hidden = !words.every((word) => texts[k].includes(word)); });
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    field.addEventListener("input", search);
    search();
  }
});
