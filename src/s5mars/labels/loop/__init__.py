"""The label loop: a page in the browser, a head that learns at once, a queue, a trainer."""
