"""The style sheets of the history: of the page, and of the chart where it is a picture of its own."""

from regraft.reports.style import LIGHT, STYLE

_COLOURS = """
:root {
  --refused: #8250df; --quiet: #818b98; --band: #0969da; --k0: #0969da; --k1: #54aeff; --k2: #bf8700; --k3: #8250df;
  --k4: #818b98;
}"""
_DARK_COLOURS = """
@media (prefers-color-scheme: dark) {
  :root {
    --refused: #ab7df8; --quiet: #7d8590; --band: #4493f8; --k0: #1f6feb; --k1: #79c0ff; --k2: #d29922; --k3: #ab7df8;
    --k4: #7d8590;
  }
}"""
_CHART = """
.history { font: 12px system-ui, sans-serif; }
.history text { fill: var(--muted); }
.history .title { fill: var(--text); font-weight: 600; }
.history .grid { stroke: var(--line); stroke-width: 1; }
.history .gap { stroke: var(--muted); stroke-dasharray: 2 3; }
.history .limit { stroke: var(--wait); stroke-dasharray: 5 3; }
.history .champion { fill: none; stroke: var(--band); stroke-width: 1.8; }
.history .band { fill: var(--band); opacity: 0.13; }
.history .photos { fill: none; stroke: var(--text); stroke-width: 1.5; }
.history .new { fill: var(--good); } .history .gone { fill: var(--bad); }
.history .calm { fill: var(--quiet); } .history .warned-of { fill: var(--wait); }
.history .interval { stroke-width: 1.3; opacity: 0.55; }
.history .hit { fill: transparent; }
.history .hit:hover, .history a:focus .hit { fill: var(--text); fill-opacity: 0.07; }
.k0 { fill: var(--k0); } .k1 { fill: var(--k1); } .k2 { fill: var(--k2); } .k3 { fill: var(--k3); }
.k4 { fill: var(--k4); }
.mark.good, .mark.good .interval { fill: var(--good); stroke: var(--good); }
.mark.warned { fill: var(--good); stroke: var(--good); } .mark .core { fill: var(--page); stroke: none; }
.mark.wait { fill: var(--wait); stroke: var(--wait); }
.mark.refused { fill: var(--refused); stroke: var(--refused); }
.mark.bad { fill: var(--bad); stroke: var(--bad); }
.mark.quiet { fill: var(--quiet); stroke: var(--quiet); }
.mark.open { fill: var(--page); stroke-width: 1.8; } .mark.line { fill: none; stroke-width: 2.4; }
"""
_PAGE = """
body { max-width: 66rem; }
.icon { width: 1em; height: 1em; vertical-align: -0.12em; margin-right: 0.35em; }
.screen { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 0.8rem; }
.screen .verdict { margin: 0; }
.screen h2 { font-size: 0.85rem; margin: 0; color: var(--muted); font-weight: 600; }
.screen .refused { border-color: var(--refused); } .screen .refused strong { color: var(--refused); }
.screen .quiet { border-color: var(--quiet); } .screen .quiet strong { color: var(--text); }
.muted { color: var(--muted); }
/* From the right: the newest runs are what a narrow screen shows first. */
.scroll { overflow-x: auto; direction: rtl; } .scroll > svg { direction: ltr; display: block; margin-right: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; color: var(--muted); font-size: 13px; margin: 0.4rem 0; }
.legend svg { flex: none; }
.runs td { font-size: 14px; } .runs .why { min-width: 14rem; }
.runs .number { text-align: right; } .runs .when { white-space: nowrap; }
.runs .of { font-weight: 600; min-width: 8.5rem; }
summary { cursor: pointer; color: var(--link); margin: 0.6rem 0; }
.verdict summary { margin: 0.2rem 0; } .verdict details p { white-space: pre-line; }
ul.other { margin: 0.4rem 0; padding: 0; list-style: none; }
@media (max-width: 40rem) {
  .runs table, .runs tbody, .runs tr { display: block; }
  .runs thead { display: none; }
  .runs tr { border-top: 1px solid var(--line); padding: 0.4rem 0; }
  .runs td { display: inline-block; border: none; padding: 0 0.8rem 0 0; text-align: left; }
  .runs .why { display: block; max-width: none; }
  .runs .number:empty { display: none; }
  .runs td[data-of]::before { content: attr(data-of) " "; color: var(--muted); }
}
"""
PAGE = STYLE + _COLOURS + _DARK_COLOURS + _CHART + _PAGE
PICTURE = LIGHT + _COLOURS + _CHART  # where nobody knows whether it is dark around: dark on white
