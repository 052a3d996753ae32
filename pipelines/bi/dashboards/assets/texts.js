"use strict";
// Numbers, dates and elements. Every text of the account becomes a text node: it is never parsed as HTML.
const Texts = (() => {
  let language = "en", currency = null, words = {};

  function configure(data) {
    language = data.language;
    words = data.words;
    try {
      new Intl.NumberFormat(language, { style: "currency", currency: data.currency });
      currency = data.currency;
    } catch { currency = null; }
  }

  const fill = (text, ...values) => values.reduce((so, value) => so.replace("{}", () => String(value)), text);
  const number = (value, digits = 0) =>
    new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: 0 }).format(value);

  function money(value, compact = false) {
    const style = currency ? { style: "currency", currency, currencyDisplay: "narrowSymbol" } : {};
    const digits = compact ? { notation: "compact", maximumFractionDigits: 1 } : { maximumFractionDigits: 0 };
    return new Intl.NumberFormat(language, { ...style, minimumFractionDigits: 0, ...digits }).format(value);
  }

  /** Per cent: in tables always with one digit behind the point, so that columns compare; all and nothing without. */
  function share(value, compact) {
    const least = compact || value === 0 || value === 1 ? 0 : 1, most = Math.abs(value) < 0.1 ? 1 : least;
    return `${new Intl.NumberFormat(language, { minimumFractionDigits: least, maximumFractionDigits: most }).format(value * 100)}\u00a0%`;
  }

  /** A figure in its unit; `compact` is for axes and labels. */
  function figure(value, unit, compact = false) {
    if (value === null || value === undefined) return "–";
    switch (unit) {
      case "money": return money(value, compact && Math.abs(value) >= 10000);
      case "share": return share(value, compact);
      case "days": return `${number(value, value < 10 ? 1 : 0)}\u00a0${words.unit_days}`;
      case "hours": return `${number(value, value < 10 ? 1 : 0)}\u00a0${words.unit_hours}`;
      case "date": return date(Aggregate.fromIso(value));
      default: return compact && Math.abs(value) >= 100000
        ? new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 }).format(value) : number(value, 1);
    }
  }

  const locale = () => language === "en" ? "en-GB" : language;
  const date = day => new Intl.DateTimeFormat(locale(), { timeZone: "UTC", day: language === "ru" ? "2-digit" : "numeric", year: "numeric",
    month: language === "ru" ? "2-digit" : "short" }).format(Aggregate.dateOf(day));

  const written = (day, options) => new Intl.DateTimeFormat(locale(), { timeZone: "UTC", ...options }).format(Aggregate.dateOf(day));

  /** A day, month or year as a label, `long` where it stands alone. */
  function bucket(day, grain, long = false) {
    if (day === null) return "–";
    if (grain === "month" && !long) return written(day, { month: "short" }).replace(".", "");
    const text = written(day, grain === "year" ? { year: "numeric" } : grain === "month" ? { month: "long", year: "numeric" }
      : { day: "numeric", month: "short" });
    return text.replace(/\sг\.$/, "");
  }

  /** A new element: attributes, then children, which are elements or texts. */
  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") made.className = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter(child => child !== null && child !== undefined && child !== ""));
    return made;
  }

  const isNumeric = unit => ["count", "money", "share", "days", "hours"].includes(unit);
  return { configure, fill, number, figure, date, bucket, make, isNumeric };
})();
