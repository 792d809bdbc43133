// Fills the heatmaps for the chosen filters and opens a cell's questions. Looks numbers, classes and
// colours up in the page's data and computes none. Text reaches the page through textContent only.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const tip = byId("tip");
  if (!data.comparisons.length) return;

  document.documentElement.classList.add("js");

  // A cell: row, column, then the numbers of cells.cell_line, rounded there; shares in points.
  const RECALL = ["Whole", "Points", "Correct", "Asked", "Low", "High", "Errors"];
  const FIELDS = ["row", "column", ...RECALL.map((name) => `b${name}`), ...RECALL.map((name) => `c${name}`),
    "tWhole", "tPoints", "lost", "gained", "pairs", "streams", "low", "high", "defined", "decidable",
    "baselineClass", "baselineShare", "compressedClass", "compressedShare", "taxClass", "taxShare"];
  // A question: the order of data._line.
  const [AT_LENGTH, AT_DEPTH, CHOICES, TOKENS, START, QUESTION, GOLD, RUN, KEY, ANSWERS, EXCERPT] =
    Array.from({ length: 11 }, (_, i) => i);
  const { tables, filters: filterNames } = data.questions;
  const chosenOf = (line, name) => tables[name][line[CHOICES][filterNames.indexOf(name)]];
  const state = { comparison: 0, chosen: [] };

  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const sign = (text) => text.replace("-", "−");
  const points = (number) => sign(number.toFixed(1));
  const whole = (number) => sign(number.toFixed(0));
  const counted = (number, noun) => `${sign(number.toLocaleString("en"))} ${noun}${number === 1 ? "" : "s"}`;
  const current = () => data.comparisons[state.comparison];
  const arms = () => current().arms;

  const optionsOf = (filter) => ["all", ...current().options[filter.name]];

  // `before`: values by filter, kept where this comparison has them too.
  function filters(before = new Map()) {
    const box = byId("choices");
    box.replaceChildren();
    state.chosen = keep(before);
    current().filters.forEach((filter, number) => {
      const label = make("label", filter.label);
      const select = make("select");
      select.id = `filter-${filter.name}`;
      for (const value of optionsOf(filter)) {
        const option = make("option", value);
        option.value = value;
        select.append(option);
      }
      select.value = state.chosen[number];
      select.addEventListener("change", () => choose(number, select.value));
      label.append(select);
      box.append(label);
    });
  }
  function keep(before) {
    const kept = current().filters.map((filter) => {
      const value = before.get(filter.name);
      return optionsOf(filter).includes(value) ? value : "all";
    });
    const first = kept.findIndex((value) => value !== "all");
    return current().combined ? kept : kept.map((value, i) => (i === first ? value : "all"));
  }
  function compare(number) {
    const before = new Map(current().filters.map((filter, i) => [filter.name, state.chosen[i]]));
    state.comparison = number;
    filters(before);
    fill();
  }

  // Where filters cannot be combined, a new choice clears the others, as the page says.
  function choose(number, value) {
    state.chosen = state.chosen.map((old, i) => (i === number ? value : current().combined ? old : "all"));
    current().filters.forEach((filter, i) => { byId(`filter-${filter.name}`).value = state.chosen[i]; });
    fill();
  }

  function recallText(cell, side) {
    const of = (name) => cell[(side === "baseline" ? "b" : "c") + name];
    const errors = of("Errors") ? `, ${counted(of("Errors"), "error")}` : "";
    return `${points(of("Points"))}% recalled, ${of("Correct")} of ${of("Asked")}${errors} ` +
      `(95%: ${points(of("Low"))} to ${points(of("High"))})`;
  }
  const few = (cell) => (cell.decidable ? "" : "; too few streams to decide");
  function taxText(cell) {
    if (!cell.defined) return `tax undefined: the baseline recalls less than ${whole(100 * data.floor)}%`;
    return `tax ${points(cell.tPoints)} points (95%: ${points(cell.low)} to ${points(cell.high)}), ` +
      `${cell.lost} lost, ${cell.gained} gained of ${counted(cell.pairs, "pair")} in ${counted(cell.streams, "stream")}` +
      few(cell);
  }
  const place = (cell) => `${current().lengths[cell.column]} tokens, depth ${current().depths[cell.row]}`;
  const tipText = (cell) => {
    const lines = [place(cell), `${arms()[0]}: ${recallText(cell, "baseline")}`];
    if (!current().alone) lines.push(`${arms()[1]}: ${recallText(cell, "compressed")}`, taxText(cell));
    return lines.join("\n");
  };
  // A cell's name: what its numbers are, where it is, then what the colours cannot say.
  function said(cell, side) {
    if (side === "tax" && !cell.defined) return `${taxText(cell)}, ${place(cell)}`;
    if (side === "tax") {
      return `tax ${counted(cell.tWhole, "point")}, ${counted(cell.pairs, "pair")}, ${place(cell)} (95%: ` +
        `${points(cell.low)} to ${points(cell.high)}), ${cell.lost} lost, ${cell.gained} gained, ` +
        counted(cell.streams, "stream") + few(cell);
    }
    const of = (name) => cell[(side === "baseline" ? "b" : "c") + name];
    const errors = of("Errors") ? `, ${counted(of("Errors"), "error")}` : "";
    return `recall ${whole(of("Whole"))} percent, ${of("Correct")} of ${of("Asked")}, ` +
      `${arms()[side === "baseline" ? 0 : 1]}, ${place(cell)} (95%: ${points(of("Low"))} to ${points(of("High"))})${errors}`;
  }

  // As cells.shown_cell does for the page without scripts.
  function shown(cell, side) {
    if (side === "tax") return cell.defined ? [whole(cell.tWhole), cell.pairs] : ["–", ""];
    const of = (name) => cell[(side === "baseline" ? "b" : "c") + name];
    return [whole(of("Whole")), `${of("Correct")}/${of("Asked")}`];
  }

  function button(cell, side) {
    const found = make("button", undefined, "cell");
    const [text, count] = shown(cell, side);
    found.type = "button";
    found.tabIndex = -1;
    found.dataset.row = cell.row;
    found.dataset.column = cell.column;
    found.className = `cell ${data.classes[cell[`${side}Class`]]}`;
    found.style.setProperty("--v", cell[`${side}Share`]);
    found.append(make("b", text), " ", make("small", count));
    found.setAttribute("aria-label", said(cell, side));
    found.addEventListener("mouseenter", () => showTip(found, cell));
    found.addEventListener("focus", () => showTip(found, cell));
    found.addEventListener("mouseleave", hideTip);
    found.addEventListener("blur", hideTip);
    found.addEventListener("click", () => open(cell));
    return found;
  }

  const heading = (text, scope) => {
    const th = make("th", text);
    th.scope = scope;
    return th;
  };
  function row(depth, number, at, side) {
    const tr = make("tr");
    tr.append(heading(depth, "row"));
    current().lengths.forEach((_, column) => {
      const td = make("td"), cell = at.get(`${number},${column}`);
      if (cell) td.append(button(cell, side));
      tr.append(td);
    });
    return tr;
  }

  function fill() {
    const cells = (current().views[state.chosen.join("|")] || [])
      .map((line) => Object.fromEntries(FIELDS.map((name, i) => [name, line[i]])));
    const at = new Map(cells.map((cell) => [`${cell.row},${cell.column}`, cell]));
    for (const table of document.querySelectorAll(".heat")) {
      const head = make("tr"), corner = heading("", "col");
      corner.append(make("span", "depth", "hidden"));
      head.append(corner, ...current().lengths.map((length) => heading(length, "col")));
      table.tHead.replaceChildren(head);
      table.tBodies[0].replaceChildren(
        ...current().depths.map((depth, number) => row(depth, number, at, table.dataset.side)));
      const first = table.querySelector(".cell");
      if (first) first.tabIndex = 0;
    }
    ["baseline", "compressed"].forEach((side, number) => {
      for (const name of document.querySelectorAll(`[data-name="${side}"]`)) name.textContent = arms()[number];
    });
    for (const limit of document.querySelectorAll("[data-limit]")) limit.textContent = whole(100 * current().limit);
    const { classes, label, columns } = current().layout;
    byId("maps").className = classes;
    byId("maps").style.setProperty("--label", label);
    byId("maps").style.setProperty("--columns", columns);
    tell(cells.reduce((sum, cell) => sum + cell.bAsked, 0));
  }

  // What is shown, on the screen and in print.
  function tell(asked) {
    const count = counted(asked, current().alone ? "question" : "paired question");
    byId("shown").textContent = `${count} shown`;
    byId("combining").textContent = current().combined ? ""
      : "One filter at a time: all their combinations would make this page too large.";
    const chosen = current().filters.map((filter, i) => `${filter.label}: ${state.chosen[i]}`);
    const compared = current().alone ? arms()[0] : `${arms()[1]} against ${arms()[0]}`;
    byId("printed").textContent = [compared, ...chosen, count].join(" · ");
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
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  // Paper has no way to open what is closed; pages of settings are better read on the screen.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open], .setup)")];
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });

  const PAGE = 100;
  let listed = [];
  const answersOf = (line) => arms().map((arm) => line[ANSWERS][data.questions.arms.indexOf(arm)]);
  function open(cell) {
    hideTip();
    const { at_length: lengths, at_depth: depths, filters: wanted } = current();
    listed = data.questions.lines.filter((line) =>
      tables.at_length[line[AT_LENGTH]] === lengths[cell.column] &&
      tables.at_depth[line[AT_DEPTH]] === depths[cell.row] &&
      answersOf(line).some(Boolean) &&
      wanted.every((filter, i) => state.chosen[i] === "all" || chosenOf(line, filter.name) === state.chosen[i]));
    byId("questions-title").textContent = place(cell);
    const missing = cell.bAsked - listed.length;
    byId("questions-note").textContent = tipText(cell).split("\n").slice(1).join(" · ") +
      (missing > 0 ? ` · ${counted(missing, "more question")} in rows.jsonl, left out here for size` : "");
    list();
    byId("questions").showModal();
    byId("questions").scrollTop = 0;
  }

  function list(count = PAGE) {
    const wanted = byId("only-wrong").checked
      ? listed.filter((line) => answersOf(line).some((answer) => answer && !answer[2])) : listed;
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
    const where = [chosenOf(line, "family"), chosenOf(line, "corpus"), `${line[TOKENS].toLocaleString("en")} tokens`,
      line[START] >= 0 ? `needle at token ${line[START].toLocaleString("en")}` : "no needle"];
    li.append(make("p", where.join(" · "), "where"));
    const command = `${data.show[tables.run[line[RUN]]]} ${line[KEY]}`;
    if (line[EXCERPT].length) {
      const [before, needle, after] = line[EXCERPT];
      const text = make("p", `… ${before}`, "excerpt");
      text.append(make("mark", needle), `${after} …`);
      li.append(text);
    }
    const how = make("p", line[EXCERPT].length ? "more of its text: " : "text around the needle: ", "where");
    how.append(make("code", command));
    li.append(how);
    li.append(make("p", line[QUESTION].trim(), "question"));
    const answers = make("dl", undefined, "answers");
    const add = (name, said, outcome, wrong) => {
      answers.append(make("dt", name), make("dd", said, wrong ? "said wrong" : "said"), make("dd", outcome, wrong ? "wrong" : ""));
    };
    add("gold", line[GOLD], "", false);
    line[ANSWERS].forEach((answer, arm) => {
      if (!answer) return;
      const [said, outcome, recalled, lost, contains] = answer;
      const how = tables.outcome[outcome].replaceAll("_", " ") + (contains ? ", contains gold" : "");
      add(data.questions.arms[arm], said.trim() || "(empty)", how, !recalled);
      if (lost) answers.append(make("dd", `needle lost by ${lost}`, "lost"));
    });
    li.append(answers);
    return li;
  }

  byId("only-wrong").addEventListener("change", () => list());
  byId("close").addEventListener("click", () => byId("questions").close());
  // The focus goes back to the cell, which would show what the reader has just put away.
  byId("questions").addEventListener("close", hideTip);
  byId("questions").addEventListener("click", (event) => { if (event.target === byId("questions")) byId("questions").close(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  if (byId("comparison")) {
    byId("comparison").addEventListener("change", (event) => compare(Number(event.target.value)));
  }
  filters();
  fill();
})();
