-- Packed records (`packing.py`), read.

-- Where the body of an entry begins in its member: after the stem and the type.
local function body_at(entry)
  local at = #entry.stem + 1
  local number = entry.member:byte(at)
  return number > 0 and at + 1 or at + 2 + entry.member:byte(at + 1)
end

-- The number of the event that wrote an entry.
local function number_of(entry)
  return (struct.unpack('>I' .. entry.digits, entry.stem, #entry.stem - entry.digits + 1))
end

-- The number of a packed event in its log.
local function seq_of(event)
  local head = event:byte(1)
  local at = 1 + 16 + (head >= PUT * 64 and STAT + math.floor(head / 8) % 8 or 0)
  return (struct.unpack('>I' .. head % 8, event, at + 1))
end

-- The path of a packed event.
local function path_of(event)
  local head = event:byte(1)
  local at = 1 + 16 + head % 8 + 1
  if head >= PUT * 64 then
    at = at + STAT + math.floor(head / 8) % 8
    at = event:byte(at) > 0 and at + 1 or at + 2 + event:byte(at + 1)
  end
  return event:sub(at)
end
