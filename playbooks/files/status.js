"use strict";
// Sorts and filters the table. Without it the page is whole, in the order of apps and hosts.
(() => {
  const table = document.querySelector("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.getElementById("filter");
  const count = document.getElementById("count");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const heads = [...table.tHead.rows[0].cells];
  const order = new Intl.Collator(undefined, { numeric: true });

  function filter() {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = form.elements.state.value;
    let shown = 0;
    rows.forEach((row, index) => {
      const wanted = (!state || row.dataset.states.split(" ").includes(state)) &&
        words.every((word) => texts[index].includes(word));
      if (row.hidden === wanted) row.hidden = !wanted;
      shown += wanted;
    });
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  }

  function sort(column, down) {
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = new Map(rows.map((row) => {
      const cell = row.cells[column];
      const key = cell.dataset.key;
      return [row, key === undefined ? cell.textContent : key === "" ? Infinity : Number(key)];
    }));
    const sorted = [...rows].sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      if (a === Infinity || b === Infinity) return (a === Infinity) - (b === Infinity);  // what is not known comes last
      return (typeof a === "number" ? a - b : order.compare(a, b)) * (down ? -1 : 1);
    });
    body.append(...sorted);
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
    form.elements.order.add(new Option(head.textContent, column));
    head.replaceChildren(button);
  });
  form.elements.order.addEventListener("change", (event) => sort(Number(event.target.value), false));
  let waiting = 0;
  form.elements.words.addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(filter);
  });
  form.elements.state.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
