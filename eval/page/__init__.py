"""An evaluation as a page that people look at.

findings.py says what is shown, pictures.py makes the small images, render.py
and template.html put them on one page that needs nothing else.
"""
