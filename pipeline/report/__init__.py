"""One run as a page to look at: report.html, a single file that needs no network.

page.py         composes the page and writes it
record.py       what a finished run folder says: results.json and predictions.parquet as arrays
wording.py      names and numbers as they are shown; the tick labels that a plot takes
scoreboard.py   the table of heads
comparison.py   all heads beside each other: intervals and swept settings
learning.py     test accuracy over the number of labels
closeup.py      one head closely: confusion, reliability, classes
featuremap.py   a sample of the test images, laid out flat by PCA and t-SNE
tsne.py         t-SNE as a process of its own, which can be stopped when its time is up
galleries.py    which images are worth a look
audit.py        what `featurecache audit` left in the run folder
thumbnails.py   image files as small pictures inside the page
reproduce.py    the commands that make the same run again, and those that audit it
page.html.jinja, page.css, page.js, map.js, gallery.js

Figures are computed here as plain plotly values; the page draws them with plotly.js, which plotly brings along. Its pip
package holds the full bundle only (4.8 MB; the smaller ones are published for npm), so that is what a page carries.
Colours stand in figures as CSS variables and are filled in by the page, which is how one page has two themes.

Nothing that a run folder lacks is an error: what cannot be shown is left out, and the page says so.
"""
