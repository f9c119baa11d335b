"""The show chapter: from a finished atlas to what a person sees. Belongs to the light tower: no torch, no model.

behaviours   the titles, one-line explanations, colours and marks of the kinds of part
measures     what is measured, and which of four questions about a head it answers
numbers      numbers as a careful scientist prints them
verdicts     what was found and what was not, in counts and in words
facts        what is told of heads, pairs and layers without being a label
head         everything about one head, gathered: for the terminal, the report and as JSON
neuron       everything about one feed-forward neuron, gathered; what its labels come to in words: describe
figures      table -> plotly figure
report       one self-contained HTML page: `report.write(atlas)`
page         the same for a terminal: `page.summary(atlas)`, `page.head_page(atlas, "L10H7")`; of a neuron: neuron_page
"""
