"""How the tables of a PostgreSQL store came to be, one revision after the other; `store/postgres_schema.py` runs them.

A revision that is out is never changed. Programs of two versions are at work at once while one replaces the other, so
a change is made in two: first what is new is added (old programs go on), and only when no old program is left what is
old is taken away; that second revision says so by `needs`.
"""
