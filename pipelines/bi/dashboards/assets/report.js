"use strict";
// The page: filters, tabs and tiles. State is in the address behind #, so that a view can be bookmarked.
(async () => {
  const { make, fill, figure, isNumeric } = Texts;
  const MAX_BARS = 15, MAX_SERIES = 9, MAX_ROWS = 200;
  const app = document.getElementById("app");

  async function read() {
    const block = document.getElementById("data");
    if (block.type === "application/json") return JSON.parse(block.textContent);
    const bytes = Uint8Array.from(atob(block.textContent), letter => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }

  let data;
  try {
    data = await read();
  } catch {
    app.replaceChildren(make("p", { class: "wait" },
      "Браузер слишком стар для этого отчёта: нужен выпуска 2023 года или новее. This browser is too old for the report: use one of 2023 or later."));
    return;
  }
  const { words } = data, filterNames = data.filters.map(each => each.name);
  const cubes = data.cubes.map(Aggregate.open), [firstDay] = Aggregate.span(cubes, data.today);
  Texts.configure(data);
  const state = { page: data.pages[0].name, period: "last_12_months", from: null, to: null, pipeline: null,
    responsible_user: null, source: null };
  let drawn = [];

  // State

  function restore() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (data.pages.some(page => page.name === given.get("page"))) state.page = given.get("page");
    if (given.get("period") in data.periods) state.period = given.get("period");
    for (const name of filterNames) {
      const place = data.filters.find(each => each.name === name).values.indexOf(given.get(name));
      state[name] = place < 0 ? null : place;
    }
    const [from, to] = ["from", "to"].map(name => /^\d{4}-\d\d-\d\d$/.test(given.get(name) || "") ? Aggregate.fromIso(given.get(name)) : null);
    setPeriod(from, to);
  }

  function setPeriod(from, to) {
    const span = state.period === "custom" ? [from ?? firstDay, to ?? data.today] : Aggregate.period(state.period, data.today);
    if (state.period === "custom" && span[0] > span[1]) span.reverse();
    [state.from, state.to] = Aggregate.snap(span, data.exact_from);
    const days = (state.to ?? data.today) - (state.from ?? firstDay);
    state.grain = days <= 45 && (data.exact_from === null || (state.from ?? firstDay) >= data.exact_from) ? "day" : days > 1900 ? "year" : "month";
  }

  function remember() {
    const kept = new URLSearchParams({ page: state.page, period: state.period });
    if (state.period === "custom") { kept.set("from", Aggregate.iso(state.from)); kept.set("to", Aggregate.iso(state.to)); }
    for (const name of filterNames) if (state[name] !== null) kept.set(name, data.filters.find(each => each.name === name).values[state[name]]);
    history.replaceState(null, "", `#${kept}`);
  }

  function change(changes) {
    Object.assign(state, changes);
    if ("period" in changes || "from" in changes || "to" in changes) setPeriod(changes.from ?? state.from, changes.to ?? state.to);
    remember();
    draw();
  }

  // Header

  const select = (title, options, value, onchange, key) => make("label", { class: "filter" }, make("span", {}, title),
    make("select", { onchange: event => onchange(event.target.value), name: key },
      ...options.map(([id, text]) => make("option", { value: id, selected: String(id) === String(value) }, text))));

  function header() {
    const dates = state.period !== "custom" ? [] : ["from", "to"].map(name => make("label", { class: "filter date" }, make("span", {}, words[name]),
      make("input", { type: "date", value: Aggregate.iso(state[name]), max: Aggregate.iso(data.today), name,
        onchange: event => event.target.value && change({ [name]: Aggregate.fromIso(event.target.value) }) })));
    const filters = data.filters.filter(each => each.values.length > 1 || state[each.name] !== null).map(each => select(each.title,
      [["", each.all], ...each.values.map((text, place) => [place, text])], state[each.name] ?? "",
      value => change({ [each.name]: value === "" ? null : Number(value) }), each.name));
    const isFiltered = filterNames.some(name => state[name] !== null) || state.period !== "last_12_months";
    return make("header", {}, make("div", { class: "bar" }, make("h1", {}, data.account),
      make("div", { class: "filters" }, select(words.period, Object.entries(data.periods), state.period, period => change({ period }), "period"),
        ...dates, ...filters,
        isFiltered ? make("button", { class: "reset", type: "button", title: words.reset, "aria-label": words.reset,
          onclick: () => change({ period: "last_12_months", ...Object.fromEntries(filterNames.map(name => [name, null])) }) }, "✕") : "")),
    make("nav", {}, ...data.pages.map(page => make("button", { type: "button", "aria-current": page.name === state.page ? "page" : null,
      onclick: () => { change({ page: page.name }); window.scrollTo(0, 0); } }, page.title))));
  }

  function periodLine() {
    const [from, to] = [state.from ?? firstDay, state.to ?? data.today];
    const note = data.exact_from !== null && from < data.exact_from ? fill(words.months_only, Texts.date(data.exact_from)) : "";
    return make("p", { class: "period" }, state.period === "all" ? data.periods.all : `${Texts.date(from)} – ${Texts.date(to)}`, note ? ` · ${note}` : "");
  }

  // Figures of a tile

  /** Text of a value of a dimension. */
  function label(dimension, value, long = false) {
    if (dimension.month) return Texts.bucket(value, state.grain, long);
    const filter = data.filters.find(each => each.name === dimension.column);
    if (filter && typeof value === "number") return filter.values[value];
    if (value === null) return dimension.missing;
    if (value === 0) return words.others;
    const own = Object.hasOwn(dimension.values, value) ? dimension.values[value] : value;
    return dimension.stage ? own.replace(/^\d+\. /, "") : own;
  }

  /** Sorts groups by the tile's dimension: time, stages and our own values in their order, others by size. */
  function sort(dimension, groups, measure) {
    const known = Object.keys(dimension.values), size = group => Aggregate.value(measure, group.sums) ?? 0;
    const key = dimension.month || dimension.stage || /month/.test(dimension.column) ? group => group.keys[0]
      : known.length > 1 ? group => known.indexOf(group.keys[0]) : null;
    const compare = (a, b) => key ? (key(a) === null) - (key(b) === null) || (key(a) > key(b) ? 1 : key(a) < key(b) ? -1 : 0)
      : size(b) - size(a) || String(label(dimension, a.keys[0])).localeCompare(String(label(dimension, b.keys[0])));
    return groups.sort(compare);
  }

  const isEmpty = (tile, group) => tile.measures.every(measure => !group.sums[measure.sum] && !group.sums[measure.per ?? measure.sum]);

  /** The pipeline that tiles of one pipeline show where none is chosen: the one with most deals of the period, for all of them. */
  function mainPipeline() {
    const tile = data.pages.flatMap(page => page.tiles).find(each => each.per_pipeline);
    return Aggregate.mainPipeline(tile, cubes[tile.cube], state);
  }

  function figures(tile, only) {
    const cube = cubes[tile.cube], here = { ...state };
    let note = "";
    if (tile.per_pipeline && here.pipeline === null && cube.filters.includes("pipeline")) {
      here.pipeline = mainPipeline() ?? Aggregate.mainPipeline(tile, cube, here);
      const pipelines = data.filters.find(each => each.name === "pipeline").values;
      if (here.pipeline !== null && pipelines.length > 1) note = fill(words.pipeline_shown, `\u00ab${pipelines[here.pipeline]}\u00bb`);
    }
    return { cube, here, note, groups: Aggregate.groups(tile, cube, here, tile.dimensions, only).filter(group => !isEmpty(tile, group)) };
  }

  function ignored(tile, cube) {
    const without = data.filters.filter(each => state[each.name] !== null && !(tile.filters.includes(each.name) && (!cube || cube.filters.includes(each.name))));
    return without.length ? fill(words.ignores, without.map(each => each.title.toLowerCase()).join(", ")) : "";
  }

  // Tables

  async function copy(table, button) {
    const text = [...table.rows].map(row => [...row.cells].map(cell => cell.dataset.raw ?? cell.textContent).join("\t")).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", {});
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = words.copy; }, 1500);
  }

  const cell = (value, unit, largest) => {
    const made = make("td", { class: "n", "data-raw": value === null || value === undefined ? "" : String(value) }, figure(value, unit));
    if (largest > 0 && value > 0) made.style.backgroundSize = `${Math.max(1, value / largest * 100)}% 100%`;
    return made;
  };

  function figureTable(tile, groups, { withBars = false, total = null } = {}) {
    const largest = withBars ? tile.measures.map(measure => measure.unit === "share" ? 0 : Math.max(0, ...groups.map(group => Aggregate.value(measure, group.sums) ?? 0))) : [];
    return make("table", { class: withBars ? "with-bars" : null },
      make("caption", {}, tile.title),
      make("thead", {}, make("tr", {}, ...tile.dimensions.map(each => make("th", { scope: "col" }, each.title)),
        ...tile.measures.map(each => make("th", { scope: "col", class: "n" }, each.title)))),
      make("tbody", {}, ...groups.slice(0, MAX_ROWS).map(group => make("tr", {},
        ...tile.dimensions.map((each, place) => make(place ? "td" : "th", place ? {} : { scope: "row" }, label(each, group.keys[place], true))),
        ...tile.measures.map((each, place) => cell(Aggregate.value(each, group.sums), each.unit, largest[place]))))),
      total ? make("tfoot", {}, make("tr", {}, make("th", { scope: "row", colspan: tile.dimensions.length }, words.total),
        ...tile.measures.map(each => cell(Aggregate.value(each, total), each.unit)))) : "");
  }

  function behind(table) {
    const button = make("button", { type: "button", class: "copy", onclick: () => copy(table, button) }, words.copy);
    return make("details", { class: "figures" }, make("summary", {}, words.table), make("div", { class: "scroll tall", tabindex: 0 }, button, table));
  }

  // Tiles

  const isWide = tile => (tile.columns || []).length > 5 || (tile.kind === "table" && tile.measures.length > 4)
    || (tile.kind === "heatmap" && tile.dimensions.some(each => /month/.test(each.column)));

  function card(tile, title, hint, ...content) {
    return make("section", { class: `card ${tile.kind}${isWide(tile) ? " wide" : ""}`, "data-tile": tile.name }, make("h2", {}, title), hint ? make("p", { class: "hint" }, hint) : "", ...content);
  }

  function sentence(text, isFault = false) { return make("p", { class: isFault ? "fault" : "nothing" }, text); }

  /** Why a tile has no figures at all; empty: it has. */
  function faultOf(tile, cube) {
    if (cube.fault && !/too many figures/.test(cube.fault)) return fill(words.fault, cube.fault);
    return cube.fault || !Aggregate.isPossible(tile, cube) ? fill(words.too_large, tile.mart) : "";
  }

  function numberTile(tile) {
    const cube = cubes[tile.cube], [measure] = tile.measures, fault = faultOf(tile, cube);
    if (fault) return card(tile, tile.title, "", sentence(fault, true));
    const now = Aggregate.value(measure, Aggregate.total(tile, cube, state)), made = [make("p", { class: "figure" }, figure(now, measure.unit))];
    const before = tile.dated ? Aggregate.before(state.period, [state.from, state.to], data.today) : null;
    if (before && before[0] >= firstDay && (data.exact_from === null || Aggregate.snap(before, data.exact_from).every((day, i) => day === before[i]))) {
      const then = Aggregate.value(measure, Aggregate.total(tile, cube, { ...state, from: before[0], to: before[1] }));
      if (then && now !== null) {
        const by = measure.unit === "share" ? now - then : now / then - 1, isGood = (by > 0) !== measure.lower;
        const digits = Math.abs(by) < 0.0995 ? 1 : 0, sign = by > 0 ? "▲" : "▼";
        if (Math.abs(by) >= 0.0005 && Math.abs(by) < 10) made.push(make("p", { class: `delta ${isGood ? "good" : "bad"}`, title: fill(words.compared, figure(then, measure.unit)) },
          `${sign} ${Texts.number(Math.abs(by) * 100, digits)}${measure.unit === "share" ? (data.language === "ru" ? " п. п." : " pp") : " %"}`));
      }
    }
    return card(tile, tile.title, [tile.hint, tile.dated ? "" : words.now].filter(Boolean)[0], ...made, ignoredLine(tile, cube));
  }

  function ignoredLine(tile, cube) {
    const text = ignored(tile, cube);
    return text ? make("p", { class: "ignored" }, text) : "";
  }

  function chartTile(tile, only = null) {
    const cube = cubes[tile.cube], fault = faultOf(tile, cube), title = only ? only.text : tile.title;
    if (fault) return card(tile, title, tile.hint, sentence(fault, true));
    const found = figures(tile, only), hint = [tile.hint, found.note].filter(Boolean).join(". ");
    if (!found.groups.length) {
      return card(tile, title, hint, sentence(tile.empty || (tile.dated ? words.nothing : words.nothing_now)), ignoredLine(tile, cube));
    }
    const made = { bars, columns, heatmap, funnel, table }[tile.kind](tile, found, title, only);
    return card(tile, title, hint, ...made, ignoredLine(tile, cube));
  }

  /** A chart's place; `names`: what its legend names, for which it grows. */
  function chart(height, title, option, onclick, names = []) {
    const at = make("div", { class: "chart", role: "img", "aria-label": title });
    at.style.height = `${height}px`;
    drawn.push({ at, option, onclick, height, names });
    return at;
  }

  /** A click on a manager or a source chooses it in the filter. */
  function chooser(tile, ordered) {
    const name = tile.dimensions[0].column;
    return filterNames.includes(name) ? place => change({ [name]: state[name] === null ? ordered[place].keys[0] : null }) : null;
  }

  const tooltipLines = (tile, group) => tile.measures.map(each => [each.title, figure(Aggregate.value(each, group.sums), each.unit)]);

  function bars(tile, { groups }, title) {
    if (tile.dimensions.length > 1) return dividedBars(tile, groups, title);
    const [dimension] = tile.dimensions, ordered = sort(dimension, groups, tile.measures[0]), shown = ordered.slice(0, MAX_BARS);
    const [first, second] = tile.measures, isPair = second && second.unit === first.unit && first.unit !== "share";
    const isStack = isPair && tile.stacked;
    const names = shown.map(group => label(dimension, group.keys[0]));
    const series = (isPair ? [first, second] : [first]).map((each, place) => ({ name: each.title, unit: each.unit,
      colour: each.lower && isPair ? Charts.BAD : isStack ? Charts.GOOD : place && isPair ? "#9db9ee" : undefined, values: shown.map(group => Aggregate.value(each, group.sums)) }));
    const height = Math.max(90, shown.length * (isPair && !isStack ? 40 : 30) + (isPair ? 60 : 34));
    const note = ordered.length > shown.length ? make("p", { class: "ignored" }, fill(words.first_of, shown.length, ordered.length)) : "";
    return [chart(height, title, (narrow, width) => Charts.bars({ categories: names, series, stacked: isStack, narrow, width,
      lines: place => tooltipLines(tile, shown[place]) }), chooser(tile, shown), series), note, behind(figureTable(tile, ordered))];
  }

  /** Bars divided by a second dimension with a few values of ours. */
  function dividedBars(tile, groups, title) {
    const [dimension, second] = tile.dimensions, [measure] = tile.measures, sizes = new Map();
    for (const group of groups) sizes.set(group.keys[0], (sizes.get(group.keys[0]) || 0) + group.sums[measure.sum]);
    const names = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a)).slice(0, MAX_BARS), values = Object.keys(second.values);
    const at = (name, value) => groups.find(group => group.keys[0] === name && group.keys[1] === value)?.sums[measure.sum] || 0;
    const colours = ["#17a38b", "#7cc7a0", "#f2c14e", "#e8894a", "#c3cad7"];
    const series = values.map((value, place) => ({ name: second.values[value], unit: measure.unit, colour: colours[place], values: names.map(name => at(name, value)) }));
    const ordered = names.flatMap(name => values.map(value => ({ keys: [name, value], sums: groups.find(group => group.keys[0] === name && group.keys[1] === value)?.sums })).filter(one => one.sums));
    return [chart(names.length * 30 + 66, title, (narrow, width) => Charts.bars({ categories: names.map(name => label(dimension, name)), series, stacked: true, narrow, width,
      lines: place => series.map(each => [each.name, `${figure(each.values[place], each.unit)} · ${figure(each.values[place] / sizes.get(names[place]), "share", true)}`, each.colour]) }),
    chooser(tile, names.map(name => ({ keys: [name] }))), series), behind(figureTable(tile, ordered))];
  }

  /** All days, months or years of the period, from the first to the last that has a figure where it has no limit. */
  function buckets(groups) {
    const days = groups.map(group => group.keys[0]).filter(day => day !== null), start = state.grain === "day" ? day => day
      : state.grain === "year" ? Aggregate.yearStart : Aggregate.monthStart;
    const [from, to] = [state.from ?? Math.max(firstDay, Math.min(...days)), state.to ?? Math.max(...days)], found = [];
    for (let day = start(from); day <= to && found.length < 400; day = state.grain === "day" ? day + 1 : start(day, 1)) found.push(day);
    return found;
  }

  /** A label of the time axis: under the first month and each January, the year. */
  function head(day, place) {
    const text = Texts.bucket(day, state.grain), date = Aggregate.dateOf(day);
    return state.grain === "month" && (!place || !date.getUTCMonth()) ? `${text}\n${date.getUTCFullYear()}` : text;
  }

  function columns(tile, { groups }, title) {
    const times = buckets(groups), heads = times.map((day, place) => head(day, place)), titles = times.map(day => Texts.bucket(day, state.grain, true));
    const [, second] = tile.dimensions, [measure] = tile.measures, isStack = Boolean(second) || tile.stacked, byTime = new Map();
    for (const group of groups) byTime.set(JSON.stringify(group.keys), group.sums);
    const sums = (...keys) => byTime.get(JSON.stringify(keys));
    let series, ordered = sort(tile.dimensions[0], [...groups], measure);
    if (second) {
      const sizes = new Map();
      for (const group of groups) sizes.set(group.keys[1], (sizes.get(group.keys[1]) || 0) + group.sums[measure.sum]);
      const names = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a)), kept = names.slice(0, names.length > MAX_SERIES ? MAX_SERIES - 1 : MAX_SERIES);
      const others = names.slice(kept.length);
      series = kept.map((name, place) => ({ name: label(second, name), unit: measure.unit, colour: Charts.COLOURS[place % Charts.COLOURS.length],
        values: times.map(day => sums(day, name)?.[measure.sum] || 0) }));
      if (others.length) series.push({ name: words.others, unit: measure.unit, colour: Charts.OTHER,
        values: times.map(day => others.reduce((sum, name) => sum + (sums(day, name)?.[measure.sum] || 0), 0)) });
    } else {
      series = tile.measures.filter(each => each.unit !== "share" || state.grain !== "day").map(each => ({ name: each.title, unit: each.unit, colour: each.name === "won" ? Charts.GOOD : each.lower ? Charts.BAD : undefined,
        values: times.map(day => sums(day) ? Aggregate.value(each, sums(day)) : each.unit === "share" ? null : 0) }));
    }
    const lines = place => [...series.map(each => [each.name, each.values[place], each.colour, each.unit]).filter(line => line[1])
      .map(([name, value, colour, unit]) => [name, figure(value, unit), colour]),
    ...(isStack ? [[words.total, figure(series.reduce((sum, each) => sum + each.values[place], 0), measure.unit)]] : [])];
    return [chart(300, title, (_narrow, width) => Charts.columns({ categories: heads, titles, series, stacked: isStack, lines, width }), null, series), behind(figureTable(tile, ordered))];
  }

  function heatmap(tile, { groups }, title) {
    const [down, across] = tile.dimensions, [measure] = tile.measures;
    const axis = (place, dimension) => {
      const sums = new Map();
      for (const group of groups) {
        const there = sums.get(group.keys[place]) || cubes[tile.cube].sums.map(() => 0);
        sums.set(group.keys[place], there.map((sum, i) => sum + group.sums[i]));
      }
      const all = [...sums].map(([key, values]) => ({ keys: [key], sums: values }));
      const isOrdered = /month/.test(dimension.column);
      return (isOrdered ? all.sort((a, b) => a.keys[0] > b.keys[0] ? 1 : -1) : sort(dimension, all, measure)).slice(0, 26).map(group => group.keys[0]);
    };
    const rows = axis(0, down), cols = axis(1, across), find = (x, y) => groups.find(group => group.keys[0] === rows[y] && group.keys[1] === cols[x]);
    const cells = rows.flatMap((_, y) => cols.map((__, x) => [x, y, find(x, y) ? Aggregate.value(measure, find(x, y).sums) : null]));
    const ordered = sort(down, [...groups], measure), isTall = cols.some(name => String(name).length > 3);
    return [chart(rows.length * 30 + (isTall ? 104 : 34), title, (narrow, width) => Charts.heatmap({ across: cols.map(each => label(across, each).replace(/^0(?=\d)/, "")), down: rows.map(each => label(down, each)),
      cells, unit: measure.unit, narrow, width, lines: (x, y) => [[across.title, label(across, cols[x])], ...tooltipLines(tile, find(x, y))] })), behind(figureTable(tile, ordered))];
  }

  function funnel(tile, { groups }, title) {
    const [dimension] = tile.dimensions, [reached, created] = tile.measures, ordered = sort(dimension, groups, reached);
    const all = Math.max(...ordered.map(group => group.sums[created.sum])), rows = ordered.map((group, place) => {
      const value = group.sums[reached.sum], before = place ? ordered[place - 1].sums[reached.sum] : all;
      const bar = make("div", { class: "flow" });
      bar.style.width = `${all ? Math.max(0.5, value / all * 100) : 0}%`;
      return make("tr", {}, make("th", { scope: "row" }, label(dimension, group.keys[0])), make("td", { class: "track" }, bar),
        make("td", { class: "n", "data-raw": value }, make("b", {}, figure(value, "count"))), cell(all ? value / all : null, "share"),
        place ? cell(before ? value / before : null, "share") : make("td", { class: "n" }, ""));
    });
    const table = make("table", { class: "funnel" }, make("caption", {}, title), make("thead", {}, make("tr", {}, make("th", { scope: "col" }, dimension.title), make("td", {}),
      make("th", { scope: "col", class: "n" }, reached.title), make("th", { scope: "col", class: "n" }, words.of_all), make("th", { scope: "col", class: "n" }, words.of_before))), make("tbody", {}, ...rows));
    return [make("div", { class: "scroll" }, table)];
  }

  function table(tile, { groups, cube, here }, _title, only) {
    const ordered = sort(tile.dimensions[0], groups, tile.measures[0]);
    const total = tile.dimensions.length === 1 && ordered.length > 1 ? Aggregate.total(tile, cube, here, only) : null;
    const made = figureTable(tile, ordered, { withBars: true, total }), button = make("button", { type: "button", class: "copy", onclick: () => copy(made, button) }, words.copy);
    const note = ordered.length > MAX_ROWS ? make("p", { class: "ignored" }, fill(words.first_of, MAX_ROWS, ordered.length)) : "";
    return [make("div", { class: "scroll tall", tabindex: 0 }, button, made), note];
  }

  const link = (address, text) => make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text);

  function listCell(column, value, address, isFirst) {
    if (column.unit === "links") return make("td", { "data-label": column.title }, ...(value || []).flatMap((each, place) => [place ? " " : "", link(each, String(place + 1))]));
    const isNumber = isNumeric(column.unit), text = value === null ? "" : isFirst && isNumber ? String(value)
      : isNumber || column.unit === "date" ? figure(value, column.unit) : String(value);
    return make(isFirst ? "th" : "td", { class: isNumber && !isFirst ? "n" : null, scope: isFirst ? "row" : null, "data-label": column.title, "data-raw": value === null ? "" : String(value) },
      isFirst && address ? link(address, text || words.card) : text);
  }

  function listTile(tile) {
    if (tile.fault) return card(tile, tile.title, tile.hint, sentence(fill(words.fault, tile.fault), true));
    if (!tile.limit) return card(tile, tile.title, tile.hint, sentence(words.lists_left_out));
    const rows = tile.rows.filter(([places]) => tile.filters.every((name, i) => state[name] === null || places[i] === state[name]));
    if (!rows.length) return card(tile, tile.title, tile.hint, sentence(tile.empty || words.nothing_now), ignoredLine(tile, null));
    const made = make("table", {}, make("caption", {}, tile.title),
      make("thead", {}, make("tr", {}, ...tile.columns.map((each, place) => make("th", { scope: "col", class: place && isNumeric(each.unit) ? "n" : null }, each.title)))),
      make("tbody", {}, ...rows.map(([, address, ...cells]) => make("tr", {}, ...cells.map((value, place) => listCell(tile.columns[place], value, address, !place))))));
    const button = make("button", { type: "button", class: "copy", onclick: () => copy(made, button) }, words.copy);
    const note = tile.rows.length >= tile.limit ? make("p", { class: "ignored" }, fill(words.first_only, tile.limit)) : "";
    return card(tile, tile.title, tile.hint, make("div", { class: "scroll tall", tabindex: 0 }, button, made), note, ignoredLine(tile, null));
  }

  function repeated(tile) {
    const cube = cubes[tile.cube], fault = faultOf(tile, cube);
    if (fault) return [card(tile, tile.title, tile.hint, sentence(fault, true))];
    const values = Aggregate.repeats(tile, cube);
    return values.length ? values.map(value => chartTile(tile, { value, text: label(tile.repeat, value) }))
      : [card(tile, tile.title, tile.hint, sentence(words.nothing))];
  }

  // The page

  function footer() {
    const leads = data.freshness_of_deals, rows = data.freshness.map(row => make("tr", {}, ...row.slice(0, 3).map((text, place) => make(place ? "td" : "th", place ? {} : { scope: "row" }, text || "–")),
      make("td", {}, row[3] ? `${row[3]} · ${row[4]}` : "–")));
    const [, upTo, , verifiedAt, verdict] = leads || [];
    const first = [fill(words.made, data.made, data.zone), upTo ? fill(words.fresh, upTo) : words.not_fresh,
      verifiedAt ? fill(words.verified, verifiedAt, verdict) : words.not_verified];
    return make("footer", {}, make("p", {}, first.join(" · ")), rows.length ? make("details", {}, make("summary", {}, words.freshness),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...["list", "complete_up_to", "state", "verification"].map(name => make("th", { scope: "col" }, words[name])))), make("tbody", {}, ...rows)))) : "",
    make("p", {}, fill(words.license, data.echarts)));
  }

  function draw() {
    for (const each of drawn) each.chart?.dispose();
    drawn = [];
    const page = data.pages.find(each => each.name === state.page), numbers = page.tiles.filter(tile => tile.kind === "number");
    const others = page.tiles.filter(tile => tile.kind !== "number");
    const active = document.activeElement?.name;
    app.replaceChildren(header(), make("main", {}, ...data.notices.map(text => make("p", { class: "notice", role: "status" }, text)), periodLine(),
      numbers.length ? make("div", { class: `numbers of-${Math.min(numbers.length, numbers.length > 6 ? 4 : 6)}` }, ...numbers.map(numberTile)) : "",
      make("div", { class: "tiles" }, ...others.flatMap(tile => tile.kind === "list" ? [listTile(tile)] : tile.repeat ? repeated(tile) : [chartTile(tile)]))), footer());
    if (active) document.getElementsByName(active)[0]?.focus();
    paint();
  }

  function paint() {
    for (const each of drawn) {
      each.chart ||= echarts.init(each.at, null, { renderer: "svg" });
      const width = each.at.clientWidth, extra = each.names.length > 1 ? Charts.legendHeight(each.names, width) - 32 : 0;
      each.at.style.height = `${each.height + extra}px`;
      each.chart.resize();
      each.chart.setOption(each.option(width < 480, width), true);
      each.chart.off("click");
      if (each.onclick) each.chart.on("click", ({ dataIndex }) => each.onclick(dataIndex));
    }
  }

  let timer;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { for (const each of drawn) each.chart?.resize(); paint(); }, 120);
  });
  window.addEventListener("hashchange", () => { restore(); draw(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  restore();
  draw();
})();
