rockspec_format = "3.0"
package = "zmalloc"
version = "scm-1"
source = {
  -- What is built is the checkout, by `luarocks make`; a release will have its address here.
  url = "git+https://example.invalid/zmalloc.git",
}
description = {
  summary = "Exact memory accounting and memory caps for Lua",
  detailed = [[
    Counts every byte that a Lua state holds, by its allocator, and caps it: for a script, for a
    call, for good. Works on a state that it did not make.]],
  license = "BSD-3-Clause",
  labels = { "memory", "limit", "allocator", "testing" },
}
supported_platforms = { "unix" }
dependencies = {
  "lua >= 5.1, < 5.6",
}
build = {
  type = "builtin",
  modules = {
    zmalloc = {
      sources = {
        "csrc/zmalloc.c",
        "csrc/zaccount.c",
        "csrc/zmarks.c",
        "csrc/zsized.c",
        "csrc/zcore.c",
        "csrc/zmap.c",
        "csrc/zport.c",
        "csrc/zsize.c",
        "lua/zmalloc_lua.c",
        "lua/zmalloc_lua_state.c",
        "lua/zpace.c",
        "lua/lzmalloc.c",
      },
      incdirs = { "csrc", "lua" },
      libraries = { "pthread", "dl", "m" },
    },
  },
}
