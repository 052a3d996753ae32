"use strict";
// A tile's figures → an ECharts option. Tooltips are elements made of texts, so names are never parsed.
const Charts = (() => {
  const { make, figure } = Texts;
  const COLOURS = ["#2f6fde", "#17a38b", "#f2a33a", "#8b5fd6", "#e0607e", "#46b3e6", "#7a9a34", "#c9713b", "#5d6b86", "#d05bb8"];
  const GOOD = "#17a38b", BAD = "#dd5a62", OTHER = "#a9b2c3";
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shorten = (text, length) => text.length > length ? `${text.slice(0, length - 1)}…` : text;

  function base() {
    const ink = css("--ink"), faint = css("--line");
    return {
      animationDuration: 250, color: COLOURS, textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: ink },
      axis: { axisLine: { lineStyle: { color: faint } }, axisTick: { show: false }, splitLine: { lineStyle: { color: faint } },
        axisLabel: { color: css("--soft"), fontSize: 12, lineHeight: 15 } },
      legend: { type: "plain", top: 0, left: 0, itemGap: 12, icon: "roundRect", itemWidth: 10, itemHeight: 10,
        textStyle: { color: ink, fontSize: 12 } },
      tooltip: { confine: true, backgroundColor: css("--card"), borderColor: faint, textStyle: { color: ink, fontSize: 13 },
        extraCssText: "box-shadow:0 4px 16px rgba(0,0,0,.18);max-width:340px;white-space:normal" },
      ink };
  }

  /** A tooltip: a heading and lines of name and figure. */
  function tip(heading, lines) {
    return make("div", { class: "tip" }, make("b", {}, heading), ...lines.map(([name, text, colour]) => {
      const dot = make("i");
      if (colour) dot.style.background = colour;
      return make("div", {}, colour ? dot : "", make("span", {}, name), make("em", {}, text));
    }));
  }

  /** Room for names on the left of a chart. */
  const nameLength = narrow => narrow ? 17 : 34;

  /** Height of a legend, whose names stand in as many lines as they need: nothing is hidden behind a page. */
  function legendHeight(series, width) {
    let lines = 1, used = 0;
    for (const { name } of series) {
      const wanted = Math.min(name.length * 7.3 + 28, width);
      if (used && used + wanted > width) { lines++; used = 0; }
      used += wanted;
    }
    return lines * 22 + 10;
  }

  /** Horizontal bars. `series`: [{name, unit, values}]; with `stacked` they stand on each other. */
  function bars({ categories, series, stacked, lines, narrow, width }) {
    const look = base(), unit = series[0].unit, last = series.length - 1;
    return { ...look, grid: { left: 4, right: narrow ? 52 : 72, top: series.length > 1 ? legendHeight(series, width) : 6, bottom: 4, containLabel: true },
      legend: series.length > 1 ? look.legend : undefined,
      tooltip: { ...look.tooltip, trigger: "axis", axisPointer: { type: "shadow" },
        formatter: ([{ dataIndex }]) => tip(categories[dataIndex], lines(dataIndex)) },
      xAxis: { ...look.axis, type: "value", splitNumber: narrow ? 2 : 4, minInterval: unit === "count" ? 1 : undefined,
        axisLabel: { ...look.axis.axisLabel, hideOverlap: true, formatter: value => figure(value, unit, true) } },
      yAxis: { ...look.axis, type: "category", data: categories, inverse: true, splitLine: { show: false },
        axisLabel: { color: look.ink, fontSize: 12, interval: 0, formatter: name => shorten(name, nameLength(narrow)) } },
      series: series.map((each, place) => ({ type: "bar", name: each.name, data: each.values, stack: stacked ? "all" : undefined,
        barMaxWidth: 22, barGap: "15%", itemStyle: { borderRadius: stacked ? 0 : [0, 3, 3, 0], color: each.colour },
        label: { show: stacked ? place === last : series.length < 3, position: "right", color: css("--soft"), fontSize: 12,
          formatter: ({ dataIndex }) => figure(stacked ? series.reduce((sum, one) => sum + (one.values[dataIndex] || 0), 0)
            : each.values[dataIndex], unit, true) } })) };
  }

  /** Columns over time; series with a share are a line on an axis of their own. */
  function columns({ categories, titles, series, stacked, lines, width }) {
    const look = base(), first = series.find(each => each.unit !== "share") || series[0], hasShare = series.some(each => each.unit === "share");
    const axis = unit => ({ ...look.axis, type: "value", splitNumber: 4, minInterval: unit === "count" ? 1 : undefined,
      axisLabel: { ...look.axis.axisLabel, formatter: value => figure(value, unit, true) } });
    return { ...look, grid: { left: 4, right: 8, top: legendHeight(series, width) + 4, bottom: 4, containLabel: true }, legend: look.legend,
      tooltip: { ...look.tooltip, trigger: "axis", axisPointer: { type: "shadow" },
        formatter: ([{ dataIndex }]) => tip(titles[dataIndex], lines(dataIndex)) },
      xAxis: { ...look.axis, type: "category", data: categories, splitLine: { show: false },
        axisLabel: { ...look.axis.axisLabel, hideOverlap: true } },
      yAxis: [axis(first.unit), ...(hasShare ? [{ ...axis("share"), min: 0, max: 1, interval: 0.25, splitLine: { show: false } }] : [])],
      series: series.map(each => each.unit === "share"
        ? { type: "line", name: each.name, data: each.values, yAxisIndex: 1, symbolSize: 6, connectNulls: true, color: "#8b5fd6" }
        : { type: "bar", name: each.name, data: each.values, stack: stacked ? "all" : undefined, barMaxWidth: 34,
          itemStyle: { color: each.colour, borderRadius: stacked ? 0 : [3, 3, 0, 0] } }) };
  }

  function heatmap({ across, down, cells, unit, lines, narrow, width }) {
    const room = (width - 7 * Math.min(nameLength(narrow), Math.max(...down.map(each => each.length)))) / across.length;
    const isSlanted = across.some(each => each.length * 7 > room - 8), look = base(), largest = Math.max(...cells.map(cell => cell[2]).filter(value => value !== null), 0);
    return { ...look, grid: { left: 4, right: 8, top: 4, bottom: 8, containLabel: true },
      tooltip: { ...look.tooltip, trigger: "item", formatter: ({ data }) => tip(down[data[1]], lines(data[0], data[1])) },
      xAxis: { ...look.axis, type: "category", data: across, position: "top", splitLine: { show: false },
        axisLabel: { color: look.ink, fontSize: 12, interval: 0, rotate: isSlanted ? narrow ? 50 : 40 : 0,
          formatter: name => shorten(name, !isSlanted ? 99 : narrow ? 14 : 20) } },
      yAxis: { ...look.axis, type: "category", data: down, inverse: true, splitLine: { show: false },
        axisLabel: { color: look.ink, fontSize: 12, interval: 0, formatter: name => shorten(name, nameLength(narrow)) } },
      visualMap: { show: false, min: 0, max: largest || 1, inRange: { color: [css("--cool"), css("--warm")] } },
      series: [{ type: "heatmap", data: cells.filter(cell => cell[2] !== null), itemStyle: { borderColor: css("--card"), borderWidth: 2, borderRadius: 4 },
        label: { show: true, fontSize: narrow ? 10 : 12, fontFamily: getComputedStyle(document.body).fontFamily,
          formatter: ({ data }) => data[2] ? narrow && unit === "share" ? String(Math.round(data[2] * 100)) : figure(data[2], unit, true) : "",
          color: look.ink } }] };
  }

  return { bars, columns, heatmap, COLOURS, GOOD, BAD, OTHER, legendHeight, css };
})();
