"use strict";
// The figures of the report, from its cubes: no DOM, no charts. Tests run this file in node.
// A state is {from, to, pipeline, responsible_user, source}: days since 2000-01-01 or null, places in the filters' lists or null.
const Aggregate = (() => {
  const DAY = 86400000, ZERO = Date.UTC(2000, 0, 1);
  const dateOf = day => new Date(ZERO + day * DAY);
  const dayOf = (year, month, date) => Math.round((Date.UTC(year, month, date) - ZERO) / DAY);
  const monthStart = (day, more = 0) => { const d = dateOf(day); return dayOf(d.getUTCFullYear(), d.getUTCMonth() + more, 1); };
  const quarterStart = (day, more = 0) => {
    const d = dateOf(day);
    return dayOf(d.getUTCFullYear(), (Math.floor(d.getUTCMonth() / 3) + more) * 3, 1);
  };
  const yearStart = (day, more = 0) => dayOf(dateOf(day).getUTCFullYear() + more, 0, 1);
  const iso = day => dateOf(day).toISOString().slice(0, 10);
  const fromIso = text => Math.round((Date.parse(text + "T00:00:00Z") - ZERO) / DAY);

  /** [first day, last day] of a period that ends today or lies before it; nulls: without a limit. */
  function period(name, today) {
    switch (name) {
      case "last_7_days": return [today - 6, today];
      case "last_30_days": return [today - 29, today];
      case "this_month": return [monthStart(today), today];
      case "last_month": return [monthStart(today, -1), monthStart(today) - 1];
      case "this_quarter": return [quarterStart(today), today];
      case "last_quarter": return [quarterStart(today, -1), quarterStart(today) - 1];
      case "this_year": return [yearStart(today), today];
      case "last_year": return [yearStart(today, -1), yearStart(today) - 1];
      case "last_12_months": return [monthStart(today, -11), today];
      default: return [null, null];
    }
  }

  /** The period before one, to compare with: as many days, or of whole months as many months; null: there is none. */
  function before(name, [from, to], today) {
    if (from === null || to === null) return null;
    if (name === "last_month") return [monthStart(from, -1), from - 1];
    if (name === "last_quarter") return [quarterStart(from, -1), from - 1];
    if (name === "last_year") return [yearStart(from, -1), from - 1];
    const months = { this_month: 1, this_quarter: 3, this_year: 12, last_12_months: 12 }[name];
    if (months) { // as far into it as today is: until the same date, or the month's last
      const begin = monthStart(from, -months), last = monthStart(to, -months);
      const end = Math.min(last + dateOf(to).getUTCDate() - 1, monthStart(last, 1) - 1);
      return [begin, end];
    }
    return [2 * from - to - 1, from - 1];
  }

  /** A period that the cubes can answer: before `exact` there are whole months only. */
  function snap([from, to], exact) {
    if (exact === null) return [from, to];
    return [from !== null && from < exact ? monthStart(from) : from,
      to !== null && to < exact ? monthStart(to, 1) - 1 : to];
  }

  /** Undoes the differences of the days. Called once for each cube. */
  function open(cube) {
    if (!cube.dated || cube.opened) return cube;
    const days = cube.keys[0];
    let before = 0;
    for (let i = 0; i < days.length; i++) if (days[i] !== null) days[i] = before += days[i];
    cube.opened = true;
    return cube;
  }

  /** The columns of a cube that tell its rows apart: {day, filters: {name: column}, dimensions: {name: place}}. */
  function layout(cube) {
    const start = cube.dated ? 1 : 0, filters = {}, dimensions = {};
    cube.filters.forEach((name, place) => { filters[name] = cube.keys[start + place]; });
    cube.dimensions.forEach((name, place) => {
      dimensions[name] = { keys: cube.keys[start + cube.filters.length + place], values: cube.values[place] };
    });
    return { day: cube.dated ? cube.keys[0] : null, filters, dimensions };
  }

  /** True if the cube has what the tile is divided by. A very large account may have lost a filter. */
  function isPossible(tile, cube) {
    const wanted = [...(tile.repeat ? [tile.repeat] : []), ...tile.dimensions];
    return wanted.every(each => each.month || cube.dimensions.includes(each.column) || cube.filters.includes(each.column));
  }

  function count(cube) { return cube.sums.length ? cube.sums[0].length : 0; }

  /** Places of the rows that a state leaves. */
  function rows(tile, cube, state) {
    const { day, filters } = layout(cube), found = [];
    const limits = Object.keys(filters).filter(name => tile.filters.includes(name) && state[name] !== null && state[name] !== undefined);
    const dated = tile.dated && day !== null;
    for (let i = 0; i < count(cube); i++) {
      if (dated && state.from !== null && (day[i] === null || day[i] < state.from)) continue;
      if (dated && state.to !== null && (day[i] === null || day[i] > state.to)) continue;
      if (limits.every(name => filters[name][i] === state[name])) found.push(i);
    }
    return found;
  }

  /** What a tile is divided by, as a function of a row: a key, which `groups` gives back. Days by `grain`. */
  function keyOf(dimension, cube, grain) {
    const { day, filters, dimensions } = layout(cube);
    if (dimension.month) {
      if (!day) return () => null;
      if (grain === "day") return i => day[i];
      return grain === "year" ? i => day[i] === null ? null : yearStart(day[i]) : i => day[i] === null ? null : monthStart(day[i]);
    }
    if (dimensions[dimension.column]) {
      const { keys, values } = dimensions[dimension.column];
      return i => values[keys[i]];
    }
    const column = filters[dimension.column];
    return i => column[i];
  }

  /** [{keys, sums}] of a tile: one for each combination of its dimensions (or of those given) that the rows have. */
  function groups(tile, cube, state, dimensions = tile.dimensions, only = null) {
    const by = dimensions.map(each => keyOf(each, cube, state.grain || "month")), found = new Map();
    const chosen = only && tile.repeat ? keyOf(tile.repeat, cube) : null;
    for (const i of rows(tile, cube, state)) {
      if (chosen && chosen(i) !== only.value) continue;
      const keys = by.map(key => key(i)), id = JSON.stringify(keys);
      let group = found.get(id);
      if (!group) found.set(id, group = { keys, sums: cube.sums.map(() => 0) });
      for (let s = 0; s < cube.sums.length; s++) group.sums[s] += cube.sums[s][i];
    }
    return [...found.values()];
  }

  /** A measure of a group: a sum, or one divided by another; null: there is nothing to divide by. */
  function value(measure, sums) {
    if (measure.per === null) return sums[measure.sum];
    return sums[measure.per] ? sums[measure.sum] / sums[measure.per] : null;
  }

  /** The sums of all rows of a state together. */
  function total(tile, cube, state, only = null) {
    const [group] = groups(tile, cube, state, [], only);
    return group ? group.sums : cube.sums.map(() => 0);
  }

  /** The values of the dimension that a tile is repeated by, the largest first. */
  function repeats(tile, cube) {
    const all = { from: null, to: null };
    return groups({ ...tile, dated: false }, cube, all, [tile.repeat])
      .sort((a, b) => b.sums[0] - a.sums[0]).map(group => group.keys[0]);
  }

  /** The pipeline that a tile of one pipeline shows where none is chosen: the one with most in it. */
  function mainPipeline(tile, cube, state) {
    const column = { column: "pipeline" };
    if (!cube.filters.includes("pipeline")) return null;
    const found = groups(tile, cube, state, [column]).filter(group => group.sums.some(sum => sum));
    found.sort((a, b) => b.sums[0] - a.sums[0] || a.keys[0] - b.keys[0]);
    return found.length ? found[0].keys[0] : null;
  }

  /** First and last day that any cube has, dates of no sense left out: of 20 years at most, and not after a year from now. */
  function span(cubes, today) {
    let first = today;
    for (const cube of cubes) if (cube.dated) {
      for (const day of cube.keys[0]) if (day !== null && day < first && day > today - 7305) first = day;
    }
    return [first, today];
  }

  return { period, before, snap, open, layout, isPossible, rows, groups, value, total, repeats, mainPipeline, span,
    dateOf, dayOf, monthStart, yearStart, iso, fromIso, count };
})();
if (typeof module !== "undefined") module.exports = Aggregate;
