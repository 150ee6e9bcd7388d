-- Writes the canned API: an nginx configuration and its answers, of the sizes and shapes that the service sends.
--   lua canned.lua FOLDER PORT PAGES
local folder, port, pages = arg[1], arg[2], tonumber(arg[3])

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "w"))
  assert(file:write(text))
  assert(file:close())
end

local detail = [[{"alias":"base","allowInternetAccess":null,"clientID":"6532622b","cpuCount":2,"diskSizeMB":5120,]]
  .. [["domain":null,"endAt":"2026-08-21T10:17:06.478134Z",]]
  .. [["envdAccessToken":"0b1f5e0c3a7d4f27b9d86e1c2a5f4e3d7c6b5a49","envdVersion":"0.4.2",]]
  .. [["lifecycle":{"autoResume":false,"onTimeout":"kill"},"memoryMB":1024,]]
  .. [["metadata":{"job":"nightly-41","owner":"team-blue","purpose":"code interpreter session of the evaluation run"},]]
  .. [["network":{"allowOut":["10.0.0.0/8","x.example"],"allowPublicTraffic":true,"denyOut":["0.0.0.0/0"]},]]
  .. [["sandboxID":"ibench0000000000000001","startedAt":"2026-08-21T10:12:06.478134Z","state":"running",]]
  .. [["templateID":"rki5dems9wqfm4r03t7g","volumeMounts":[]}]]

local created = [[{"alias":"base","clientID":"6532622b","domain":null,]]
  .. [["envdAccessToken":"0b1f5e0c3a7d4f27b9d86e1c2a5f4e3d7c6b5a49","envdVersion":"0.4.2",]]
  .. [["sandboxID":"ibench0000000000000001","templateID":"rki5dems9wqfm4r03t7g","trafficAccessToken":null}]]

local rows = {}
for i = 1, 100 do
  rows[i] = ([[{"alias":"base","clientID":"6532622b","cpuCount":%d,"diskSizeMB":5120,]]
    .. [["endAt":"2026-08-21T11:%02d:%02d.478134Z","envdVersion":"0.4.2","memoryMB":%d,]]
    .. [["metadata":{"job":"nightly-%d","owner":"team-blue",]]
    .. [["purpose":"code interpreter session of the evaluation run",]]
    .. [["run":"https://ci.example.com/runs/%d/steps/evaluate","trace":"4bf92f3577b34da6a3ce929d0e0e%04d"},]]
    .. [["sandboxID":"ibench%016d","startedAt":"2026-08-21T10:%02d:%02d.478134Z","state":"%s",]]
    .. [["templateID":"rki5dems9wqfm4r03t7g","volumeMounts":[{"name":"datasets","path":"/mnt/datasets"}]}]]):format(
    i % 8 + 1, i % 60, i * 7 % 60, 512 * (i % 4 + 1), i, 7000000 + i, i, i, i % 60, i * 7 % 60,
    i % 5 == 0 and "paused" or "running")
end

local template = [[{"aliases":["base"],"buildCount":3,"buildID":"0c7bb3a1-3f1d-4a2b-9c56-2d1f0e9a8b7c",]]
  .. [["buildStatus":"ready","cpuCount":2,"createdAt":"2026-03-01T09:00:00Z","createdBy":null,"diskSizeMB":5120,]]
  .. [["envdVersion":"0.4.2","lastSpawnedAt":"2026-08-21T10:12:06Z","memoryMB":1024,"names":["base"],"public":true,]]
  .. [["spawnCount":512,"templateID":"rki5dems9wqfm4r03t7g","updatedAt":"2026-08-20T09:00:00Z"}]]

-- each page names the next one; the last has no token
local tokens = {}
for i = 1, pages - 1 do
  tokens[i] = ("    %s page%d;"):format(i == 1 and '""' or "page" .. i - 1, i)
end
tokens[#tokens + 1] = "    default \"\";"

write("page.json", "[" .. table.concat(rows, ",") .. "]")
write("nginx.conf", ([[
worker_processes 1;
master_process off;
daemon off;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path FOLDER/temp;
  proxy_temp_path FOLDER/temp;
  fastcgi_temp_path FOLDER/temp;
  uwsgi_temp_path FOLDER/temp;
  scgi_temp_path FOLDER/temp;
  keepalive_requests 10000000;
  keepalive_timeout 300;
  tcp_nodelay on;
  open_file_cache max=16;
  default_type application/json;
  types { }
  map $arg_nextToken $token {
TOKENS
  }
  map $request_method $next_token {
    GET $token;
    default "";
  }
  server {
    listen 127.0.0.1:PORT;
    root FOLDER;
    location = /v2/sandboxes {
      if ($request_method = POST) { return 201 'CREATED'; }
      add_header X-Next-Token $next_token;
      rewrite ^ /page.json break;
    }
    location = /v2/templates { return 200 '[TEMPLATE]'; }
    location /sandboxes/ {
      if ($request_method = DELETE) { return 204; }
      if ($request_method = GET) { return 200 'DETAIL'; }
      return 405;
    }
  }
}
]]):gsub("%u%u%u%u+", {
  FOLDER = folder, PORT = port, TOKENS = table.concat(tokens, "\n"),
  CREATED = created, TEMPLATE = template, DETAIL = detail,
}))
io.stderr:write(("canned answers: detail %d B, page of 100 %d B, create %d B\n"):format(
  #detail, #table.concat(rows, ",") + 2, #created))
