-- What all operations use. KEYS[1] is the queue's `meta`; every other key begins as it does, hash tag included.
-- ARGV: operation, now (empty: the server's clock), lease, head start, retention, retention of the dead, arguments.
--
-- job:ID      hash: the job and all that is known of it      all, in:STATE  sorted sets: id by order of enqueuing
-- steps:ID    stream: step n has the id 0-(n+1)              due            sorted set: queued ids by when due
-- leases      sorted set: running ids by end of lease        kept           sorted set: what is forgotten when
-- workers     sorted set: worker by until when it lives      infos          hash: what a worker says of itself
-- undrawn     sorted set: queued jobs that have not drawn their turn, as they are not yet due
-- later       sorted set: ids not yet due, by when           waits          sorted set: held ids by since when
-- ready:A, suspects:A   for each agent, sorted sets of what may be handed out: by -priority, then by the member,
--                       which begins with its turn, the time it was due and the order of enqueuing
-- turns:PRIORITY  sorted set: the last turn that a tenant has drawn; handed: hash, the highest handed out at a priority
-- held:W      the same for follow-ups that worker W may have before the others
-- talk:C      hash of a conversation: jobs, running, placed (its first queued job), chapter, holder, ended_at
-- talk:C:queued, talk:C:done   sorted sets: its ids, by order of enqueuing and by chapter
-- follow:ID   hash of a job that somebody follows: until when, and how far which step has come
-- events      stream: something may have become ready, or a job has ended
local call = redis.call
local P = string.sub(KEYS[1], 1, -5)
local OP = ARGV[1]
local LEASE, HEAD_START = tonumber(ARGV[3]), tonumber(ARGV[4])
local RETENTION, DEAD_RETENTION = tonumber(ARGV[5]), tonumber(ARGV[6])
local FIRST = 7 -- of the arguments
local AT_ONCE = 1000 -- jobs settled, promoted or forgotten in one call, so that others do not wait long for it
local FAR = 9e15 -- microseconds: what is due later than this is never due

local now
if ARGV[2] ~= '' then
  now = tonumber(ARGV[2])
else
  local time = call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local news = false -- whether waiting workers have to be told
local VERSION = 1 -- of this layout
local ops = {}

local function exact(number) return string.format('%.17g', number) end
local function job_key(id) return P .. 'job:' .. id end
local function steps_key(id) return P .. 'steps:' .. id end
local function talk_key(conversation) return P .. 'talk:' .. conversation end

local function alive(worker)
  local till = worker and call('ZSCORE', P .. 'workers', worker)
  return till and tonumber(till) > now
end

-- Where a job stands among those of its priority.
local function member_of(id, turn, due, seq)
  return string.format('%016.0f%016.0f%016.0f', turn, math.min(math.floor(due * 1e6), FAR), seq) .. id
end

local function id_of(member) return string.sub(member, 49) end

local function ready_key(agent, strikes)
  return P .. (strikes > 0 and 'suspects:' or 'ready:') .. agent
end

local function placing(id)
  local f = call('HMGET', job_key(id), 'due_at', 'seq', 'priority', 'agent', 'strikes', 'conversation', 'turn')
  local due, seq = tonumber(f[1]), tonumber(f[2])
  return {
    due = due, score = -tonumber(f[3]), ready = ready_key(f[4], tonumber(f[5])),
    conversation = f[6], member = member_of(id, tonumber(f[7] or 0), due, seq),
  }
end

local function drawing(id, seq) return string.format('%016.0f', seq) .. id end

-- A job that has become due draws its turn: one more than its tenant's last, but behind what was handed out.
local function draw(id)
  local f = call('HMGET', job_key(id), 'turn', 'priority', 'tenant')
  if f[1] then return end
  local turns, tenant = P .. 'turns:' .. f[2], string.sub(f[3], 2)
  local last = tonumber(call('ZSCORE', turns, tenant) or 0)
  local turn = math.max(last, tonumber(call('HGET', P .. 'handed', f[2]) or 0)) + 1
  call('ZADD', turns, turn, tenant)
  call('HSET', job_key(id), 'turn', turn)
end

-- Put a queued job where it can be found: only jobs whose turn it is in their conversation are placed.
local function place(id)
  local due = tonumber(call('HGET', job_key(id), 'due_at'))
  if due > now then
    call('ZADD', P .. 'later', due, id)
    return
  end
  news = true
  draw(id)
  local j = placing(id)
  if j.conversation ~= '' then
    local c = call('HMGET', talk_key(j.conversation), 'holder', 'ended_at')
    if alive(c[1]) then
      call('ZADD', P .. 'held:' .. c[1], j.score, j.member)
      call('ZADD', P .. 'waits', math.max(j.due, tonumber(c[2])), id)
      return
    end
  end
  call('ZADD', j.ready, j.score, j.member)
end

local function unplace(id)
  local j = placing(id)
  call('ZREM', P .. 'later', id)
  call('ZREM', j.ready, j.member)
  if j.conversation ~= '' then
    call('ZREM', P .. 'waits', id)
    local holder = call('HGET', talk_key(j.conversation), 'holder')
    if holder then call('ZREM', P .. 'held:' .. holder, j.member) end
  end
end

-- See to it that the first queued job of a conversation is placed, and no other; none while one is running.
local function refresh(conversation)
  local key = talk_key(conversation)
  local c = call('HMGET', key, 'running', 'placed')
  local first = not c[1] and call('ZRANGE', key .. ':queued', 0, 0)[1] or false
  if first == c[2] then return end
  if c[2] then unplace(c[2]) end
  if first then
    call('HSET', key, 'placed', first)
    place(first)
  else
    call('HDEL', key, 'placed')
  end
end

local function queue(id, seq, due, conversation)
  call('HSET', job_key(id), 'state', 'queued', 'due_at', due)
  call('ZADD', P .. 'in:queued', seq, id)
  call('ZADD', P .. 'due', due, id)
  if due <= now then
    draw(id)
  else
    call('ZADD', P .. 'undrawn', due, drawing(id, seq))
  end
  if conversation == '' then
    place(id)
  else
    call('ZADD', talk_key(conversation) .. ':queued', seq, id)
    refresh(conversation)
  end
end

local function stop_running(id, conversation)
  call('ZREM', P .. 'leases', id)
  call('ZREM', P .. 'in:running', id)
  if conversation ~= '' then call('HDEL', talk_key(conversation), 'running') end
end

-- A try has ended badly: the job is queued again, due at `due`, or dead.
local function end_try(id, cause, strikes, again, due)
  local f = call('HMGET', job_key(id), 'seq', 'conversation', 'due_at')
  local seq, conversation = tonumber(f[1]), f[2]
  stop_running(id, conversation)
  call('HSET', job_key(id), 'strikes', strikes, 'cause', cause)
  if again then
    if due then call('HDEL', job_key(id), 'turn') end
    queue(id, seq, due or tonumber(f[3]), conversation)
    return
  end
  call('HSET', job_key(id), 'state', 'dead', 'ended_at', now)
  call('ZADD', P .. 'in:dead', seq, id)
  call('ZADD', P .. 'kept', now + DEAD_RETENTION, 'j' .. id)
  if conversation ~= '' then refresh(conversation) end
  news = true
end

-- Forget a job, whatever its state.
local function delete(id)
  local f = call('HMGET', job_key(id), 'state', 'conversation', 'seq')
  local state, conversation = f[1], f[2]
  if not state then return end
  call('ZREM', P .. 'undrawn', drawing(id, tonumber(f[3])))
  if state == 'queued' then unplace(id) end
  call('DEL', job_key(id), steps_key(id), P .. 'follow:' .. id)
  for _, set in ipairs({'all', 'in:' .. state, 'due', 'leases'}) do call('ZREM', P .. set, id) end
  call('ZREM', P .. 'kept', 'j' .. id)
  if conversation == '' then return end
  local key = talk_key(conversation)
  call('ZREM', key .. ':queued', id)
  call('ZREM', key .. ':done', id)
  local c = call('HMGET', key, 'running', 'placed')
  if c[1] == id then call('HDEL', key, 'running') end
  if c[2] == id then call('HDEL', key, 'placed') end
  if call('HINCRBY', key, 'jobs', -1) <= 0 then
    call('DEL', key)
    call('ZREM', P .. 'kept', 'c' .. conversation)
  else
    refresh(conversation)
  end
end

local function add_step(id, index, body, chapter, conversation)
  call('XADD', steps_key(id), '0-' .. string.format('%.0f', index + 1), 'b', body)
  if not chapter then
    chapter = conversation ~= '' and call('HGET', talk_key(conversation), 'chapter') or 0
    call('HSET', job_key(id), 'chapter', chapter)
  end
  call('HSET', job_key(id), 'steps', index + 1)
end

local function first_until(set, moment)
  return call('ZRANGEBYSCORE', P .. set, '-inf', moment, 'LIMIT', 0, AT_ONCE)
end

-- Place what has become due.
local function place_due()
  for _, member in ipairs(first_until('undrawn', now)) do
    call('ZREM', P .. 'undrawn', member)
    draw(string.sub(member, 17))
  end
  for _, id in ipairs(first_until('later', now)) do
    call('ZREM', P .. 'later', id)
    place(id)
  end
end

local function tell()
  if news then call('XADD', P .. 'events', 'MAXLEN', '~', 100, '*', 'e', '1') end
  news = false
end
