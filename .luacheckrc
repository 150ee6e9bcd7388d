-- The library keeps to what every Lua since 5.1 has; inline ignores carry their reason.
std = "min"
max_line_length = 120
cache = "build/.luacheckcache"
exclude_files = { "build", "lua_modules", ".luarocks", "*.rockspec" }

files["spec"] = { std = "max+busted" }
files["spec/oom/handler.lua"] = { read_globals = { "conn" } }
files["spec/support/neovim_main.lua"] = { read_globals = { "vim" } }
files["spec/hosts/nginx.lua"] = { std = "max+ngx_lua" }
files["bench"] = { std = "max" }
files["examples"] = { std = "min" }
files["examples/neovim"] = { read_globals = { "vim" } }
files["examples/nginx"] = { std = "ngx_lua" }
files["bin"] = { std = "min" }
files["meta"] = { std = "max" }
files["meta/core.lua"] = { ignore = { "2" } }
