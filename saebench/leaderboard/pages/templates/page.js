"use strict";
(() => {
  // Sorting: press a heading; numbers by their full value, rows without a value last. Controls stay below.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, index) => {
      heading.querySelector("button")?.addEventListener("click", () => {
        const ascending = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => ({ row, text: row.cells[index].dataset.v }));
        const numeric = index > 0;
        rows.sort((a, b) => {
          if (a.text === "" || b.text === "") return (a.text === "") - (b.text === "");
          const order = numeric ? Number(a.text) - Number(b.text) : a.text.localeCompare(b.text, "en", { numeric: true });
          return ascending ? order : -order;
        });
        for (const { row } of rows) row.classList.remove("next-level");
        body.append(...rows.map(({ row }) => row));
      });
    });
  }

  // A link to a row opens its details.
  const openTarget = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  // What a metric is, on hover: the glossary says it once.
  const glossary = new Map([...document.querySelectorAll(".glossary dt")].map((term) => [term.textContent, term.nextElementSibling.textContent]));
  for (const name of document.querySelectorAll("table.metrics tbody th[scope=row]")) name.title = glossary.get(name.textContent) ?? "";

  // The chart library and the specifications are deflated.
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (char) => char.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  };
  const unpacked = async () => {
    const specs = JSON.parse(await unpack("specs"));
    if (Object.keys(specs.charts).length) {
      const library = document.createElement("script");
      library.textContent = await unpack("library");
      document.head.append(library);
    }
    return specs;
  };
  const ready = unpacked();

  // Charts are made again when light turns to dark. Hidden ones have no width: they are made when the switch shows them.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = async () => {
    const { charts, themes } = await ready;
    const theme = dark.matches ? "dark" : "light";
    const config = themes[theme];
    for (const place of document.querySelectorAll(".chart")) {
      if (place.closest("[hidden]") || place.dataset.theme === theme) continue;
      place.dataset.theme = theme;
      const legend = { ...config.legend, columns: Math.max(2, Math.floor(place.clientWidth / 100)) };
      const options = { actions: false, renderer: "svg", tooltip: { theme }, config: { ...config, legend } };
      await vegaEmbed(place, charts[place.dataset.spec], options);
    }
    document.documentElement.dataset.theme = theme;
  };

  // Equal spend: of the six comparisons, the switch shows one.
  for (const section of document.querySelectorAll(".spend")) {
    const show = () => {
      const chosen = [...section.querySelectorAll("input:checked")].map((input) => input.value).join("-");
      for (const state of section.querySelectorAll(".state")) state.hidden = state.dataset.state !== chosen;
    };
    section.addEventListener("change", () => { show(); draw(); });
    show();
  }

  if (document.querySelector(".chart")) {
    dark.addEventListener("change", draw);
    draw();
  }
})();
