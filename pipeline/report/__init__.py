"""One run as a page to look at: report.html, a single file that needs no network.

page      composes the page and writes it
sections  its parts: each turns a run into figures, rows or cards
wording   names and numbers as they are shown; the tick labels that a plot takes
pictures  image files as small pictures inside the page
page.html.jinja, page.css, page.js, map.js, gallery.js

Figures are computed here as plain plotly values; the page draws them with plotly.js, which plotly brings along. Its pip
package holds the full bundle only (4.8 MB; the smaller ones are published for npm), so that is what a page carries.
Colours are CSS variables in figures and are filled in by the page, which is how one page has two themes.

Nothing that a run folder lacks is an error: what cannot be shown is left out, and the page says so.
"""
