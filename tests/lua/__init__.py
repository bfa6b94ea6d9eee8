"""Tests of what C hosts of Lua use, as C programs: one for each Lua of this machine."""
