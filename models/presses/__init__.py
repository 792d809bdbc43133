"""Presses: which tokens of a context a cache keeps, or reads, once the context has ended.

One file for each press. `contract` says what a press is given and what it gives back, `observed`
collects the queries that some presses need while the context is read, `rotary` turns queries back
to what they were before their rotary embedding, and `options` reads the option `press` of an arm.
The models say how their caches are cut down.
"""
