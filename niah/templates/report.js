// Fills the heatmaps for the chosen filters and opens a cell's questions. Looks numbers up in the
// page's data and computes none. Text reaches the page through textContent only.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const tip = byId("tip");
  if (!data.comparisons.length) return;

  // A cell: row, column, then the numbers in the order of views.Cell.as_list.
  const FIELDS = ["row", "column", "bCorrect", "bAsked", "bLow", "bHigh", "bErrors", "cCorrect",
    "cAsked", "cLow", "cHigh", "cErrors", "lost", "gained", "pairs", "streams", "low", "high", "defined"];
  // A question: the order of page_data.page_questions.
  const [LENGTH, DEPTH, FAMILY, CORPUS, TEMPLATES, TOKENS, START, QUESTION, GOLD, RUN, KEY, ANSWERS,
    EXCERPT] = Array.from({ length: 13 }, (_, i) => i);
  const tables = data.questions.tables;
  const CHOSEN = {
    family: (line) => tables.family[line[FAMILY]],
    corpus: (line) => tables.corpus[line[CORPUS]],
    template_split: (line) => tables.template_split[line[TEMPLATES]],
    length_phase: (line) => String(line[TOKENS] % 4),
    needle_phase: (line) => String(Math.max(0, line[START]) % 4),
  };
  const state = { comparison: 0, chosen: [] };

  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const points = (share) => {
    const text = (100 * share).toFixed(1);
    return (Number(text) === 0 ? "0.0" : text).replace("-", "−");
  };
  const whole = (share) => {
    const text = (100 * share).toFixed(0);
    return (Number(text) === 0 ? "0" : text).replace("-", "−");
  };
  const current = () => data.comparisons[state.comparison];
  const arms = () => current().arms;

  function filters() {
    const box = byId("choices");
    box.replaceChildren();
    state.chosen = current().filters.map(() => "all");
    current().filters.forEach((filter, number) => {
      const label = make("label", filter.label);
      const select = make("select");
      select.id = `filter-${filter.name}`;
      for (const value of ["all", ...current().options[filter.name]]) {
        const option = make("option", value);
        option.value = value;
        select.append(option);
      }
      select.addEventListener("change", () => choose(number, select.value));
      label.append(select);
      box.append(label);
    });
  }

  // Where all choices together were too many to compute, a new choice clears the others.
  function choose(number, value) {
    state.chosen[number] = value;
    if (!(state.chosen.join("|") in current().views)) {
      const alone = state.chosen.map((_, i) => (i === number ? value : "all"));
      if (alone.join("|") in current().views) state.chosen = alone;
    }
    current().filters.forEach((filter, i) => { byId(`filter-${filter.name}`).value = state.chosen[i]; });
    fill();
  }

  function recallText(cell, side) {
    const p = side === "baseline" ? "b" : "c";
    const errors = cell[`${p}Errors`] ? `, ${cell[`${p}Errors`]} errors` : "";
    return `${points(cell[`${p}Correct`] / cell[`${p}Asked`])}% recalled, ${cell[`${p}Correct`]} of ` +
      `${cell[`${p}Asked`]}${errors} (95%: ${points(cell[`${p}Low`])} to ${points(cell[`${p}High`])})`;
  }
  function taxText(cell) {
    if (!cell.defined) return `tax undefined: the baseline recalls less than ${whole(data.floor)}%`;
    return `tax ${points((cell.lost - cell.gained) / cell.pairs)} points (95%: ${points(cell.low)} to ` +
      `${points(cell.high)}), ${cell.lost} lost, ${cell.gained} gained of ${cell.pairs} pairs in ` +
      `${cell.streams} ${cell.streams === 1 ? "stream" : "streams"}`;
  }
  const place = (cell) => `${current().lengths[cell.column]} tokens, depth ${current().depths[cell.row]}`;
  const tipText = (cell) => {
    const lines = [place(cell), `${arms()[0]}: ${recallText(cell, "baseline")}`];
    if (!current().alone) lines.push(`${arms()[1]}: ${recallText(cell, "compressed")}`, taxText(cell));
    return lines.join("\n");
  };

  function button(cell, side) {
    const found = make("button", undefined, "cell");
    found.type = "button";
    found.tabIndex = -1;
    found.dataset.row = cell.row;
    found.dataset.column = cell.column;
    const value = make("b"), count = make("small");
    value.style.fontWeight = "inherit";
    if (side === "tax") {
      const tax = (cell.lost - cell.gained) / cell.pairs;
      const v = Math.min(1, Math.abs(tax) / current().limit);
      count.textContent = cell.pairs;
      if (cell.defined) {
        value.textContent = whole(tax);
        found.classList.add(tax < 0 ? "gain" : "loss");
        found.classList.toggle("light", v > (tax < 0 ? 0.78 : 0.86));
        found.classList.toggle("shown", cell.low > 0 || cell.high < 0);
        found.style.setProperty("--v", v.toFixed(3));
      } else {
        value.textContent = "–";
        found.classList.add("undefined");
        count.textContent = "";
      }
    } else {
      const p = side === "baseline" ? "b" : "c";
      const recall = cell[`${p}Correct`] / cell[`${p}Asked`];
      value.textContent = whole(recall);
      count.textContent = `${cell[`${p}Correct`]}/${cell[`${p}Asked`]}`;
      found.classList.add("recall");
      found.classList.toggle("light", recall < 0.39);
      found.style.setProperty("--v", recall.toFixed(3));
    }
    found.append(value, " ", count);
    const said = side === "tax" ? taxText(cell) : recallText(cell, side);
    found.setAttribute("aria-label", `${found.textContent.trim()}, ${place(cell)}: ${said}`);
    found.addEventListener("mouseenter", () => showTip(found, cell));
    found.addEventListener("focus", () => showTip(found, cell));
    found.addEventListener("mouseleave", hideTip);
    found.addEventListener("blur", hideTip);
    found.addEventListener("click", () => open(cell));
    return found;
  }

  function fill() {
    const cells = (current().views[state.chosen.join("|")] || [])
      .map((line) => Object.fromEntries(FIELDS.map((name, i) => [name, line[i]])));
    const at = new Map(cells.map((cell) => [`${cell.row},${cell.column}`, cell]));
    for (const table of document.querySelectorAll(".heat")) {
      const side = table.dataset.side;
      const head = make("tr");
      const corner = make("th");
      corner.scope = "col";
      corner.append(make("span", "depth", "hidden"));
      head.append(corner);
      for (const length of current().lengths) {
        const th = make("th", length);
        th.scope = "col";
        head.append(th);
      }
      const rows = current().depths.map((depth, row) => {
        const tr = make("tr");
        const th = make("th", depth);
        th.scope = "row";
        tr.append(th);
        current().lengths.forEach((_, column) => {
          const td = make("td"), cell = at.get(`${row},${column}`);
          if (cell) td.append(button(cell, side));
          tr.append(td);
        });
        return tr;
      });
      table.tHead.replaceChildren(head);
      table.tBodies[0].replaceChildren(...rows);
      const first = table.querySelector(".cell");
      if (first) first.tabIndex = 0;
    }
    ["baseline", "compressed"].forEach((side, number) => {
      const name = document.querySelector(`[data-name="${side}"]`);
      if (name) name.textContent = arms()[number];
    });
    for (const limit of document.querySelectorAll("[data-limit]")) limit.textContent = whole(current().limit);
    const pairs = cells.reduce((sum, cell) => sum + cell.pairs, 0);
    byId("shown").textContent = `${pairs.toLocaleString("en")} ${current().alone ? "" : "paired "}questions shown`;
  }

  function showTip(element, cell) {
    tip.textContent = tipText(cell);
    tip.hidden = false;
    const box = element.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2), innerWidth - size.width - 8);
    const above = box.top - size.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  }
  function hideTip() { tip.hidden = true; }

  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  byId("maps").addEventListener("keydown", (event) => {
    const here = event.target.closest(".cell"), step = STEPS[event.key];
    if (event.key === "Escape") hideTip();
    if (!here || !step) return;
    event.preventDefault();
    const table = here.closest("table");
    let row = Number(here.dataset.row), column = Number(here.dataset.column), next = null;
    const inside = () => row >= 0 && column >= 0 && row < current().depths.length && column < current().lengths.length;
    do {
      row += step[0];
      column += step[1];
      next = table.querySelector(`.cell[data-row="${row}"][data-column="${column}"]`);
    } while (!next && inside());
    if (!next) return;
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  addEventListener("scroll", hideTip, { passive: true });

  const PAGE = 100;
  let listed = [];
  function open(cell) {
    hideTip();
    const { lengths, depths, filters: wanted } = current();
    listed = data.questions.lines.filter((line) =>
      tables.length[line[LENGTH]] === lengths[cell.column] &&
      tables.depth[line[DEPTH]] === depths[cell.row] &&
      arms().some((arm) => line[ANSWERS][data.questions.arms.indexOf(arm)]) &&
      wanted.every((filter, i) => state.chosen[i] === "all" || CHOSEN[filter.name](line) === state.chosen[i]));
    byId("questions-title").textContent = place(cell);
    const missing = cell.pairs - listed.length;
    byId("questions-note").textContent = tipText(cell).split("\n").slice(1).join(" · ") +
      (missing > 0 ? ` · ${missing} more questions are in rows.jsonl, left out here for size` : "");
    list();
    byId("questions").showModal();
    byId("questions").scrollTop = 0;
  }

  function list(count = PAGE) {
    const wanted = byId("only-wrong").checked
      ? listed.filter((line) => line[ANSWERS].some((answer) => answer && !answer[2])) : listed;
    const items = wanted.slice(0, count).map(item);
    if (!wanted.length) items.push(make("li", "No arm was wrong here."));
    if (wanted.length > count) {
      const li = make("li"), more = make("button", `Show ${Math.min(PAGE, wanted.length - count)} more`, "more");
      more.type = "button";
      more.addEventListener("click", () => list(count + PAGE));
      li.append(more);
      items.push(li);
    }
    byId("questions-list").replaceChildren(...items);
  }

  function item(line) {
    const li = make("li");
    const where = [tables.family[line[FAMILY]], tables.corpus[line[CORPUS]], `${line[TOKENS].toLocaleString("en")} tokens`,
      line[START] >= 0 ? `needle at token ${line[START].toLocaleString("en")}` : "no needle",
      `niah show runs/${tables.run[line[RUN]]} ${line[KEY]}`];
    li.append(make("p", where.join(" · "), "where"));
    if (line[EXCERPT].length) {
      const [before, needle, after] = line[EXCERPT];
      const text = make("p", `… ${before}`, "excerpt");
      text.append(make("mark", needle), `${after} …`);
      li.append(text);
    }
    li.append(make("p", line[QUESTION].trim(), "question"));
    const answers = make("dl", undefined, "answers");
    const add = (name, said, outcome, wrong) => {
      answers.append(make("dt", name), make("dd", said, wrong ? "said wrong" : "said"), make("dd", outcome, wrong ? "wrong" : ""));
    };
    add("gold", line[GOLD], "", false);
    line[ANSWERS].forEach((answer, arm) => {
      if (!answer) return;
      const [said, outcome, recalled, lost] = answer;
      const how = tables.outcome[outcome].replaceAll("_", " ");
      add(data.questions.arms[arm], said.trim() || "(empty)", how, !recalled);
      if (lost) answers.append(make("dd", `needle: ${lost}`, "lost"));
    });
    li.append(answers);
    return li;
  }

  byId("only-wrong").addEventListener("change", () => list());
  byId("close").addEventListener("click", () => byId("questions").close());
  byId("questions").addEventListener("click", (event) => { if (event.target === byId("questions")) byId("questions").close(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  if (byId("comparison")) {
    byId("comparison").addEventListener("change", (event) => {
      state.comparison = Number(event.target.value);
      filters();
      fill();
    });
  }
  filters();
  fill();
})();
