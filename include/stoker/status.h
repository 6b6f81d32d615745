/*
 * stoker/status.h - stages of a job, how it ended, and what became of each of its chunks.
 *
 * Each table is one X-macro, from which enum, text and manual are made. Numbers are never reused.
 */
#ifndef STOKER_STATUS_H
#define STOKER_STATUS_H

/* STAGE(symbol, number, name, meaning): stages of a slot; they may be skipped, never reversed. */
#define STOKER_STAGES(STAGE) \
	STAGE(NONE,     0, "none",     "not yet taken from the ring") \
	STAGE(ACCEPTED, 1, "accepted", "taken from the ring and checked") \
	STAGE(PROBED,   2, "probed",   "it is known what exists and when all of it can be expected") \
	STAGE(LOADING,  3, "loading",  "bytes are on their way; progress rises") \
	STAGE(ENDING,   4, "ending",   "the status is known, memory is still being touched") \
	STAGE(DONE,     5, "done",     "over: nobody touches the job's blocks any more")

/* STATUS(symbol, number, name, meaning): how a job, or a message on the socket, ended. */
#define STOKER_STATUSES(STATUS) \
	STATUS(OK,           0, "ok",           "done as asked; a miss is ok with 0 chunks") \
	STATUS(CANCELLED,    1, "cancelled",    "the client or the end of its session stopped it") \
	STATUS(DEADLINE,     2, "deadline",     "its deadline passed") \
	STATUS(EXPIRED,      3, "expired",      "no such lease or hold, or it has ended") \
	STATUS(NO_LAYOUT,    4, "no-layout",    "the model is known by digest alone: no worker has described it yet") \
	STATUS(BAD_REQUEST,  5, "bad-request",  "an argument is out of range or names nothing of this client") \
	STATUS(NO_MEMORY,    6, "no-memory",    "no room: everything is pinned, or a table is full") \
	STATUS(IO,           7, "io",           "a read failed or its checksum was wrong; nothing wrong was served") \
	STATUS(REFUSED,      8, "refused",      "the broker is draining, or a quota or limit forbids it") \
	STATUS(STARTING,     9, "starting",     "the broker is still reading its tables: 0 chunks for now") \
	STATUS(RESET,       10, "reset",        "the model was reset while the job ran") \
	STATUS(FAULT,       11, "fault",        "the client's own memory could not be read or written") \
	STATUS(NOT_PERMITTED, 12, "not-permitted", "the peer's uid may not do this") \
	STATUS(NOT_FOUND,   13, "not-found",    "no object of that name") \
	STATUS(TOO_LARGE,   14, "too-large",    "objects of the model would be larger than this broker takes") \
	STATUS(BROKER_GONE, 64, "broker-gone",  "private to the library: the broker went away; never in a slot")

/* CHUNK(symbol, number, name, meaning): what became of one chunk of a STORE or RETRIEVE. */
#define STOKER_CHUNKS(CHUNK) \
	CHUNK(NONE,       0, "none",       "not reached") \
	CHUNK(STORED,     1, "stored",     "this job stored it") \
	CHUNK(PRESENT,    2, "present",    "it was there already") \
	CHUNK(ELSEWHERE,  3, "elsewhere",  "another job is storing it; its end was not waited for") \
	CHUNK(REFUSED,    4, "refused",    "no room, a quota, or the broker drains") \
	CHUNK(INCOMPLETE, 5, "incomplete", "a block id was missing: a chunk with holes is no chunk") \
	CHUNK(RETRIEVED,  6, "retrieved",  "its blocks have been written") \
	CHUNK(FAILED,     7, "failed",     "not copied, or not wholly: compute it") \
	CHUNK(CANCELLED,  8, "cancelled",  "stopped before it was copied")

#define STOKER_AS_STAGE(symbol, number, name, meaning)  STOKER_STAGE_##symbol = (number),
#define STOKER_AS_STATUS(symbol, number, name, meaning) STOKER_STATUS_##symbol = (number),
#define STOKER_AS_CHUNK(symbol, number, name, meaning)  STOKER_CHUNK_##symbol = (number),

enum stoker_stage { STOKER_STAGES(STOKER_AS_STAGE) STOKER_STAGE_END };
enum stoker_status { STOKER_STATUSES(STOKER_AS_STATUS) STOKER_STATUS_END };
enum stoker_chunk { STOKER_CHUNKS(STOKER_AS_CHUNK) STOKER_CHUNK_END };

#endif
