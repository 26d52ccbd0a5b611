"""The only place for how a report page looks and what its script does: CSS and JavaScript."""

STYLE = """
:root{--page:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--panel:#f6f8fa;--link:#0059a3;
--first:#0072b2;--second:#d55e00;--share:#c8d1da}
@media (prefers-color-scheme:dark){:root{--page:#14181d;--ink:#e6edf3;--soft:#9aa7b4;--line:#343d47;
--panel:#1c2229;--link:#6cb6ff;--first:#56b4e9;--second:#e69f00;--share:#3d4753}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0 auto;max-width:62rem;padding:1rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.3rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
a{color:var(--link)}
a:focus-visible,button:focus-visible,summary:focus-visible,.scroll:focus-visible{
outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:1rem;background:var(--page);padding:.5rem;z-index:1}
.verdict{font-size:1.1rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:0}
.cards div{background:var(--panel);border:1px solid var(--line);border-radius:.4rem}
.cards div{padding:.6rem .8rem}
.cards dt{color:var(--soft);font-size:.85rem}
.cards dd{margin:0;font-size:1.35rem;font-variant-numeric:tabular-nums}
.scroll{overflow:auto;max-height:32rem;border:1px solid var(--line);border-radius:.4rem}
table{border-collapse:collapse;font-size:.9rem;width:100%;overflow-wrap:break-word}
caption{text-align:left;color:var(--soft);padding:.4rem .6rem}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tbody th{font-weight:600;min-width:3rem}
.sorted td,.sorted tbody th{max-width:18rem}
thead th{position:sticky;top:0;background:var(--panel);white-space:nowrap}
th.number{text-align:right}
td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:3px solid var(--link)}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
.confusion{width:auto}
.confusion td,.confusion thead th{text-align:right;white-space:nowrap}
.confusion td.hot{color:#fff}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:.8rem}
.weights{border:1px solid var(--line);align-self:start}
.weights caption{font-weight:600;color:var(--ink)}
.weights td{border:0;padding:.15rem .6rem}
.bar{width:35%}
.bar i{display:block;height:.8rem;margin-top:.3rem}
.plus{background:var(--first)}
.minus{background:var(--second)}
details{margin-top:1rem}
summary{cursor:pointer}
figure{margin:1rem 0}
figcaption{font-size:.85rem}
svg{width:100%;max-width:40rem;height:auto;font:12px system-ui,sans-serif}
svg text{fill:var(--soft)}
.end{text-anchor:end}.middle{text-anchor:middle}
@media (max-width:40rem){svg{font-size:17px}}
svg .grid{stroke:var(--line)}
.axis{stroke:var(--soft)}
polyline{fill:none;stroke-width:2}
polyline.first{stroke:var(--first)}polyline.second{stroke:var(--second);stroke-dasharray:6 3}
circle.first{fill:var(--first)}circle.second{fill:var(--second)}
rect.share{fill:var(--share)}
line.ideal{stroke:var(--soft);stroke-dasharray:5 4}
.key{display:inline-flex;align-items:center;margin-right:1.2rem}
.key i{width:1.4rem;height:0;border-top:3px solid;margin-right:.4rem}
.key .first{border-color:var(--first)}
.key .second{border-color:var(--second);border-top-style:dashed}
.key .ideal{border-color:var(--soft);border-top-style:dashed}
.key .share{border-color:var(--share);border-top-width:.8rem}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media print{
:root{--page:#fff;--ink:#000;--soft:#444;--line:#bbb;--panel:#f2f2f2;--link:#000;
--first:#0072b2;--second:#d55e00;--share:#c8d1da}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{max-width:none;padding:0;font-size:10pt}
nav,.skip{display:none}
.scroll{max-height:none;overflow:visible;border:0}
table{font-size:8pt}
thead th{position:static;white-space:normal}
tbody th,tbody td{overflow-wrap:anywhere}
.sorted td,.sorted tbody th{max-width:none}
h2,h3{break-after:avoid}
th button{display:contents}
tr,figure,.weights,.cards div{break-inside:avoid}
}
"""

# Columns are sorted by buttons, which a keyboard reaches; without the script the page is whole.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => {
        const cell = row.cells[at];
        return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
      };
      const order = (a, b) => typeof a === "number" && typeof b === "number"
        ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (up ? 1 : -1) * order(value(a), value(b)));
      table.tBodies[0].append(...rows);
    });
  });
}
addEventListener("beforeprint", () => {
  for (const hidden of document.querySelectorAll("details")) hidden.open = true;
});
"""
