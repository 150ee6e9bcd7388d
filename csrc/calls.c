/* The table of REST calls: one row a call; those of a sandbox's own daemon are in calls_envd.c. A new endpoint is a new row, a new field a line in a shape. E2B's own
 * description of these calls is its openapi.yml; the names on the left are the server's, those on the right Lua's. */
#include "calls.h"
#include "e2b.h"

#include <string.h>

static const e2b_shape string = {E2B_STRING, 0, NULL, NULL};
static const e2b_shape text = {E2B_TEXT, 0, NULL, NULL};
static const e2b_shape boolean = {E2B_BOOL, 0, NULL, NULL};
static const e2b_shape number = {E2B_NUMBER, 0, NULL, NULL};
static const e2b_shape whole = {E2B_WHOLE, 0, NULL, NULL};
static const e2b_shape seconds = {E2B_SECONDS, 0, NULL, NULL};
static const e2b_shape epoch = {E2B_EPOCH, 0, NULL, NULL};
static const e2b_shape date = {E2B_TIME, 0, NULL, NULL};
static const e2b_shape pairs = {E2B_PAIRS, 0, NULL, &string};
static const e2b_shape string_list = {E2B_LIST, 0, NULL, &string};
static const e2b_shape whole_list = {E2B_LIST, 0, NULL, &whole};
static const e2b_shape string_map = {E2B_MAP, 0, NULL, &string};
static const e2b_shape any_map = {E2B_MAP, 0, NULL, &any};

/* ---- Parts of a sandbox ---- */

static const e2b_field enabled_fields[] = {FIELD("enabled", "enabled", boolean, 0), END};
static const e2b_shape enabled = {E2B_SWITCH, ENABLED, enabled_fields, NULL};

static const e2b_field transform_fields[] = {FIELD("headers", "headers", string_map, E2B_SECRET), END};
static const e2b_shape transform = {E2B_OBJECT, HEADERS_TRANSFORM, transform_fields, NULL};
static const e2b_field rule_fields[] = {FIELD("transform", "transform", transform, E2B_SECRET), END};
static const e2b_shape rule = {E2B_OBJECT, RULE, rule_fields, NULL};
static const e2b_shape rule_list = {E2B_LIST, 0, NULL, &rule};
static const e2b_shape rule_map = {E2B_MAP, 0, NULL, &rule_list};

static const e2b_field egress_proxy_fields[] = {
    FIELD("address", "address", string, 0),
    FIELD("username", "username", text, 0),
    FIELD("password", "password", text, E2B_DROPPED),
    END,
};
static const e2b_shape egress_proxy = {E2B_OBJECT, EGRESS_PROXY, egress_proxy_fields, NULL};

static const e2b_field network_fields[] = {
    FIELD("allowPublicTraffic", "allow_public_traffic", boolean, 0),
    FIELD("allowOut", "allow_out", string_list, 0),
    FIELD("denyOut", "deny_out", string_list, 0),
    FIELD("rules", "rules", rule_map, E2B_SECRET),
    FIELD("egressProxy", "egress_proxy", egress_proxy, E2B_SECRET),
    FIELD("maskRequestHost", "mask_request_host", text, 0),
    FIELD("httpsPorts", "https_ports", whole_list, 0),
    END,
};
static const e2b_shape network = {E2B_OBJECT, NETWORK, network_fields, NULL};

static const e2b_field lifecycle_fields[] = {
    FIELD("onTimeout", "on_timeout", string, 0),
    FIELD("autoResume", "auto_resume", boolean, 0),
    END,
};
static const e2b_shape lifecycle = {E2B_OBJECT, LIFECYCLE, lifecycle_fields, NULL};

static const e2b_field volume_mount_fields[] = {
    FIELD("name", "name", string, 0),
    FIELD("path", "path", string, 0),
    END,
};
static const e2b_shape volume_mount = {E2B_OBJECT, VOLUME_MOUNT, volume_mount_fields, NULL};
static const e2b_shape volume_mount_list = {E2B_LIST, 0, NULL, &volume_mount};

/* Sandbox, SandboxDetail and ListedSandbox: what one has, the others may have in a newer server. */
static const e2b_field sandbox_fields[] = {
    FIELD("sandboxID", "sandbox_id", text, E2B_REQUIRED),
    FIELD("templateID", "template_id", text, 0),
    FIELD("alias", "name", text, 0),
    FIELD("envdVersion", "envd_version", string, 0),
    FIELD("envdAccessToken", "envd_access_token", text, E2B_SECRET),
    FIELD("trafficAccessToken", "traffic_access_token", text, E2B_SECRET),
    FIELD("domain", "sandbox_domain", text, 0),
    FIELD("startedAt", "started_at", date, 0),
    FIELD("endAt", "end_at", date, 0),
    FIELD("cpuCount", "cpu_count", number, 0),
    FIELD("memoryMB", "memory_mb", number, 0),
    FIELD("diskSizeMB", "disk_size_mb", number, 0),
    FIELD("metadata", "metadata", any_map, 0),
    FIELD("state", "state", string, 0),
    FIELD("allowInternetAccess", "allow_internet_access", boolean, 0),
    FIELD("network", "network", network, E2B_SECRET),
    FIELD("lifecycle", "lifecycle", lifecycle, 0),
    FIELD("volumeMounts", "volume_mounts", volume_mount_list, 0),
    DROP("clientID"),
    END,
};
static const e2b_shape sandbox = {E2B_OBJECT, SANDBOX, sandbox_fields, NULL};
static const e2b_shape sandbox_list = {E2B_LIST, 0, NULL, &sandbox};

static const e2b_field metric_fields[] = {
    FIELD("timestampUnix", "timestamp", number, 0),
    FIELD("timestamp", "timestamp", date, E2B_FALLBACK),
    FIELD("cpuCount", "cpu_count", number, 0),
    FIELD("cpuUsedPct", "cpu_used_pct", number, 0),
    FIELD("memUsed", "mem_used", number, 0),
    FIELD("memTotal", "mem_total", number, 0),
    FIELD("memCache", "mem_cache", number, 0),
    FIELD("diskUsed", "disk_used", number, 0),
    FIELD("diskTotal", "disk_total", number, 0),
    END,
};
static const e2b_shape metric = {E2B_OBJECT, METRIC, metric_fields, NULL};
static const e2b_shape metric_list = {E2B_LIST, 0, NULL, &metric};

/* ---- Templates ---- */

static const e2b_field user_fields[] = {
    FIELD("id", "id", string, 0),
    FIELD("email", "email", text, 0),
    END,
};
static const e2b_shape user = {E2B_OBJECT, USER, user_fields, NULL};

static const e2b_field template_fields[] = {
    FIELD("templateID", "template_id", text, E2B_REQUIRED),
    FIELD("buildID", "build_id", text, 0),
    FIELD("cpuCount", "cpu_count", number, 0),
    FIELD("memoryMB", "memory_mb", number, 0),
    FIELD("diskSizeMB", "disk_size_mb", number, 0),
    FIELD("public", "public", boolean, 0),
    FIELD("aliases", "aliases", string_list, 0),
    FIELD("names", "names", string_list, 0),
    FIELD("createdAt", "created_at", date, 0),
    FIELD("updatedAt", "updated_at", date, 0),
    FIELD("createdBy", "created_by", user, 0),
    FIELD("lastSpawnedAt", "last_spawned_at", date, 0),
    FIELD("spawnCount", "spawn_count", number, 0),
    FIELD("buildCount", "build_count", number, 0),
    FIELD("envdVersion", "envd_version", string, 0),
    FIELD("buildStatus", "build_status", string, 0),
    END,
};
static const e2b_shape template = {E2B_OBJECT, TEMPLATE, template_fields, NULL};
static const e2b_shape template_list = {E2B_LIST, 0, NULL, &template};

/* ---- Requests ---- */

static const e2b_field token_fields[] = {
    FIELD("audience", "audience", string, 0),
    FIELD("tokenType", "token_type", string, 0),
    END,
};
static const e2b_shape token = {E2B_OBJECT, 0, token_fields, NULL};
static const e2b_shape token_map = {E2B_MAP, 0, NULL, &token};
static const e2b_field iam_fields[] = {FIELD("tokens", "tokens", token_map, 0), END};
static const e2b_shape iam = {E2B_OBJECT, 0, iam_fields, NULL};

#define CREATE_FIELDS                                                                                                  \
    FIELD("templateID", "template", string, 0), FIELD("timeout", "timeout", seconds, 0),                              \
        FIELD("autoPause", "auto_pause", boolean, 0), FIELD("autoPauseMemory", "auto_pause_memory", boolean, 0),       \
        FIELD("autoResume", "auto_resume", enabled, 0),                                                                \
        FIELD("allow_internet_access", "allow_internet_access", boolean, 0), FIELD("network", "network", network, 0),  \
        FIELD("metadata", "metadata", string_map, 0), FIELD("envVars", "envs", string_map, 0),                         \
        FIELD("mcp", "mcp", any, 0), FIELD("iam", "iam", iam, 0),                                                      \
        FIELD("volumeMounts", "volume_mounts", volume_mount_list, 0)

static const e2b_field create_fields[] = {CREATE_FIELDS, END};
static const e2b_field create_v1_fields[] = {CREATE_FIELDS, FIELD("secure", "secure", boolean, 0), END};

static const e2b_field pause_fields[] = {FIELD("memory", "memory", boolean, 0), END};
static const e2b_field resume_fields[] = {
    FIELD("timeout", "timeout", seconds, 0),
    FIELD("memory", "memory", boolean, 0),
    END,
};
static const e2b_field timeout_fields[] = {FIELD("timeout", "timeout", seconds, 0), END};

static const e2b_field list_query[] = {
    FIELD("metadata", "metadata", pairs, 0),
    FIELD("state", "state", string_list, 0),
    FIELD("order", "order", string, 0),
    FIELD("startedAfter", "started_after", date, 0),
    FIELD("template", "template", string, 0),
    FIELD("limit", "limit", whole, 0),
    FIELD("nextToken", "next_token", text, 0),
    END,
};
static const e2b_field list_v1_query[] = {FIELD("metadata", "metadata", pairs, 0), END};
static const e2b_field metrics_query[] = {FIELD("start", "from", epoch, 0), FIELD("end", "to", seconds, 0), END};
static const e2b_field template_query[] = {
    FIELD("teamID", "team_id", text, 0),
    FIELD("limit", "limit", whole, 0),
    FIELD("nextToken", "next_token", text, 0),
    END,
};
static const e2b_field template_v1_query[] = {FIELD("teamID", "team_id", text, 0), END};

/* ---- The table ---- */

#define ONE "/sandboxes/{sandbox_id}"
#define READ (E2B_IDEMPOTENT | E2B_GZIP)

static const e2b_call calls[] = {
    {"sandbox_create", "POST", "/v2/sandboxes", 201, E2B_ALWAYS_BODY, NULL, create_fields, &sandbox},
    {"sandbox_create_v1", "POST", "/sandboxes", 201, E2B_ALWAYS_BODY, NULL, create_v1_fields, &sandbox},
    {"sandbox_list", "GET", "/v2/sandboxes", 200, READ, list_query, NULL, &sandbox_list},
    {"sandbox_list_v1", "GET", "/sandboxes", 200, READ, list_v1_query, NULL, &sandbox_list},
    {"sandbox_get", "GET", ONE, 200, E2B_IDEMPOTENT, NULL, NULL, &sandbox},
    {"sandbox_kill", "DELETE", ONE, 204, E2B_IDEMPOTENT, NULL, NULL, NULL},
    {"sandbox_pause", "POST", ONE "/pause", 204, E2B_ALWAYS_BODY, NULL, pause_fields, NULL},
    {"sandbox_resume", "POST", ONE "/resume", 201, E2B_ALWAYS_BODY, NULL, resume_fields, &sandbox},
    {"sandbox_connect", "POST", "/v2" ONE "/connect", 200, E2B_ALWAYS_BODY, NULL, resume_fields, &sandbox},
    {"sandbox_connect_v1", "POST", ONE "/connect", 200, E2B_ALWAYS_BODY, NULL, resume_fields, &sandbox},
    {"sandbox_timeout", "POST", ONE "/timeout", 204, E2B_ALWAYS_BODY, NULL, timeout_fields, NULL},
    {"sandbox_metrics", "GET", ONE "/metrics", 200, READ, metrics_query, NULL, &metric_list},
    {"template_list", "GET", "/v2/templates", 200, READ, template_query, NULL, &template_list},
    {"template_list_v1", "GET", "/templates", 200, READ, template_v1_query, NULL, &template_list},
    {"raw", NULL, NULL, 200, E2B_RAW | E2B_GZIP, NULL, NULL, &any},
};
#define CALLS (sizeof calls / sizeof *calls)

const e2b_call *e2b_call_find(const char *name)
{
    size_t i;

    for (i = 0; i < CALLS; i++) {
        if (strcmp(calls[i].name, name) == 0)
            return &calls[i];
    }
    for (i = 0; i < e2b_envd_calls_count; i++) {
        if (strcmp(e2b_envd_calls[i].name, name) == 0)
            return &e2b_envd_calls[i];
    }
    return NULL;
}

int e2b_call_success(const e2b_call *call, long status)
{
    (void)call; /* servers differ in which 2xx they send */
    return status >= 200 && status <= 299;
}

static void set_call(lua_State *L, const e2b_call *call)
{
    lua_createtable(L, 0, 6);
    lua_pushstring(L, call->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, call->method);
    lua_setfield(L, -2, "method");
    lua_pushstring(L, call->path);
    lua_setfield(L, -2, "path");
    lua_pushboolean(L, (call->flags & E2B_IDEMPOTENT) != 0);
    lua_setfield(L, -2, "idempotent");
    lua_pushboolean(L, (call->flags & E2B_RPC) != 0);
    lua_setfield(L, -2, "rpc");
    lua_pushboolean(L, (call->flags & E2B_STREAM) != 0);
    lua_setfield(L, -2, "stream");
    lua_setfield(L, -2, call->name);
}

/* core.calls: what Lua may know of the table, one entry a row. */
static void push_calls(lua_State *L)
{
    size_t i;

    lua_createtable(L, 0, (int)(CALLS + e2b_envd_calls_count));
    for (i = 0; i < CALLS; i++)
        set_call(L, &calls[i]);
    for (i = 0; i < e2b_envd_calls_count; i++)
        set_call(L, &e2b_envd_calls[i]);
}

static const e2b_call *check_call(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    const e2b_call *call = e2b_call_find(name);

    if (call == NULL)
        luaL_error(L, "there is no call '%s'", name);
    return call;
}

/* core._request(call, args), for specs: method, path, body, content type; or false and a message. */
static int request(lua_State *L)
{
    const e2b_call *call = check_call(L, 1);

    lua_settop(L, 2);
    if (e2b_call_request(L, call, 2))
        return 4;
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
}

/* core._answer(call, status, body), for specs: true and the value; or false, a message, "json" or "shape". */
static int answer(lua_State *L)
{
    const e2b_call *call = check_call(L, 1);
    long status = (long)luaL_checkinteger(L, 2);
    size_t len;
    const char *body = luaL_checklstring(L, 3, &len);
    int done = e2b_call_answer(L, call, status, len > 0 ? body : NULL, len);

    lua_pushboolean(L, done == E2B_ANSWER_OK);
    lua_insert(L, -2);
    if (done == E2B_ANSWER_OK)
        return 2;
    lua_pushstring(L, done == E2B_ANSWER_JSON ? "json" : "shape");
    return 3;
}

/* core._error(body), for specs: the facts that an error body gives. */
static int error_body(lua_State *L)
{
    size_t len;
    const char *body = luaL_checklstring(L, 1, &len);

    lua_newtable(L);
    e2b_error_body(L, lua_gettop(L), body, len);
    return 1;
}

int e2b_calls_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"_request", request}, {"_answer", answer}, {"_error", error_body}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
    push_calls(L);
    lua_setfield(L, -2, "calls");
    return 0;
}
