"""How a model, a needle family and a text of one's own meet `niah`; see docs/extending.md."""
