"""The style sheet of the HTML pages: one column, light and dark, from the width of a phone."""

LIGHT = """
:root {
  --text: #1f2328; --muted: #59636e; --line: #d1d9e0; --page: #ffffff; --card: #f6f8fa; --link: #0969da;
  --good: #1a7f37; --wait: #9a6700; --bad: #cf222e;
}"""
STYLE = (
    LIGHT
    + """
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e6edf3; --muted: #9198a1; --line: #3d444d; --page: #0d1117; --card: #151b23; --link: #4493f8;
    --good: #3fb950; --wait: #d29922; --bad: #f85149;
  }
}
body {
  font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 60rem; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere;
}
a { color: var(--link); }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 1.2rem 0 0.6rem; }
h3 { font-size: 1.1rem; margin: 1.4rem 0 0.5rem; }
h4 { font-size: 0.9rem; margin: 0.8rem 0 0.2rem; }
nav h2 { font-size: 1rem; margin-bottom: 0.2rem; }
nav ul { columns: 15rem; column-gap: 2rem; margin: 0; padding-left: 1.2rem; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.6rem 0; font-variant-numeric: tabular-nums; }
th, td {
  border: 1px solid var(--line); padding: 0.25rem 0.6rem; text-align: left; vertical-align: top;
  overflow-wrap: normal;
}
th { background: var(--card); }
img { max-width: 100%; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: 0.8rem; }
.strips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.strip { display: flex; gap: 2px; }
.strip img { flex: 1 1 0; min-width: 0; }
.row { display: flex; gap: 0.3rem; overflow-x: auto; }
.row img { flex: none; max-width: none; width: 5.5rem; height: 5.5rem; }
figure { margin: 0; }
figure img { min-width: 7rem; }
figcaption { font-size: 12px; color: var(--muted); }
.verdict { border-left: 0.4rem solid var(--wait); background: var(--card); padding: 0.7rem 1rem; margin: 0 0 1rem; }
.verdict strong { font-size: 1.2rem; color: var(--wait); }
.verdict p { margin: 0.2rem 0 0; }
.good { border-color: var(--good); } .good strong { color: var(--good); }
.bad { border-color: var(--bad); } .bad strong { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: 0.8rem; }
.figure { flex: 1 1 14rem; border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.6rem 1rem; }
.figure b { display: block; font-size: 1.9rem; line-height: 1.2; }
.figure span { color: var(--muted); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; margin: 1rem 0; }
dt { color: var(--muted); }
dd { margin: 0; }
@media (max-width: 40rem) {
  .chart { max-width: none; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.5rem; }
}
"""
)
