-- luacheck . (make lint)
std = "min" -- what all Lua versions have in common
max_line_length = 100
exclude_files = { ".venv", "build", "dist" }
files["tests/lua/**/*_spec.lua"] = { std = "max+busted" }
files["tests/lua/chunks"] = {
  std = "max",
  ignore = { "241" }, -- what is only kept is there to be kept
  globals = { "AT_THE_END", "KEPT", "POOL" },
  max_line_length = 120,
}
files["tests/lua/module"] = { std = "max", ignore = { "241" } }
files["tests/lua/test.lua"] = { std = "max" }
files["examples/host.lua"] = { read_globals = { "jit" } }
files["examples/runaway.lua"] = { ignore = { "241" } } -- which is its bug
files["bench/lua"] = { std = "max" }
files["lua/library"] = { std = "max", ignore = { "212", "211" } } -- definitions have no bodies
files["**/*.rockspec"] = { std = "+rockspec" }
