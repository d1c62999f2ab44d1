-- SPDX-License-Identifier: GPL-2.0
--
-- wrk's part of load.py. Arguments: COUNT BODY CLOSE
--
-- Requests are counted in a mapped file, where load.py sees them while they are sent: it measures in a window in which all
-- connections are up. BODY > 0 makes POSTs with so many bytes, CLOSE = 1 a connection for each request.

local ffi = require "ffi"
ffi.cdef [[
	int open(const char *path, int flags);
	void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset);
]]

local O_RDWR, PROT_READ_WRITE, MAP_SHARED = 2, 3, 1
local count, text

function init(args)
	local fd = ffi.C.open(args[1], O_RDWR)
	local body = tonumber(args[2])

	assert(fd >= 0, "cannot open " .. args[1])
	count = ffi.cast("uint64_t *", ffi.C.mmap(nil, 8, PROT_READ_WRITE, MAP_SHARED, fd, 0))
	if body > 0 then
		wrk.method = "POST"
		wrk.body = string.rep("0123456789abcdef", body / 16)
	end
	if args[3] == "1" then
		wrk.headers["Connection"] = "close"
	end
	text = wrk.format()
end

function request()
	count[0] = count[0] + 1
	return text
end

function done(summary, latency)
	local e = summary.errors

	io.write(string.format("load: %d %d %d %d\n", latency:percentile(50), latency:percentile(99),
		latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
