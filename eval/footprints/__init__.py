"""What a network attends to, to look at.

collect.py asks the network, sheet.py draws contact sheets, viewer.py and
viewer.html make a page in which a person moves over the image.
"""
