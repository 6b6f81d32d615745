/*
 * Keys from tokens: a chain of SHA-256, so that a key names its chunk and all that came before, and a
 * hit needs no comparison of tokens. Everything is little-endian:
 *
 *	key(-1) = SHA-256("stoker key chain 1" NUL, chunk_tokens 32, seed)
 *	extras  = SHA-256 over (length 64, bytes) of each extra of the chunk; 32 zero bytes if it has none
 *	key(i)  = SHA-256(key(i-1), tokens 32 each, their number 32, number of extras 32, extras)
 *
 * What is hashed ends in 40 bytes of fixed meaning, so no two inputs run into each other. Tokens go
 * into the hash as they come; a partial chunk's key is made from a copy of the state. A change of any
 * of this is a change of every key: it would cost all users their caches.
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "src/client/client.h"

static const char chain_name[] = "stoker key chain 1";

struct stoker_hasher {
	EVP_MD *sha256;
	EVP_MD_CTX *chunk;		/* the chunk that is being filled */
	EVP_MD_CTX *extras;		/* of that chunk */
	EVP_MD_CTX *copy, *partial;	/* of those two, to end them and yet go on */
	uint32_t chunk_tokens;
	uint32_t filled;		/* tokens in `chunk` */
	uint32_t n_extras;
	struct stoker_key root, parent;
};

static void put32(uint8_t to[4], uint32_t value)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(value >> 8 * i);
}

static bool tokens_update(EVP_MD_CTX *context, const uint32_t *tokens, size_t n)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return EVP_DigestUpdate(context, tokens, n * sizeof(*tokens));
#else
	for (size_t i = 0; i < n; i++) {
		uint8_t bytes[4];

		put32(bytes, tokens[i]);
		if (!EVP_DigestUpdate(context, bytes, sizeof(bytes)))
			return false;
	}
	return true;
#endif
}

static bool chunk_begin(struct stoker_hasher *h)
{
	h->filled = 0;
	h->n_extras = 0;
	return EVP_DigestInit_ex2(h->chunk, h->sha256, NULL) &&
	       EVP_DigestUpdate(h->chunk, h->parent.bytes, sizeof(h->parent.bytes));
}

/* End the digest in @context with what every chunk ends in. */
static bool chunk_end(const struct stoker_hasher *h, EVP_MD_CTX *context, struct stoker_key *ret)
{
	uint8_t tail[8 + 32] = { 0 };

	put32(tail, h->filled);
	put32(tail + 4, h->n_extras);
	if (h->n_extras > 0 && (!EVP_MD_CTX_copy_ex(h->copy, h->extras) || !EVP_DigestFinal_ex(h->copy, tail + 8, NULL)))
		return false;
	return EVP_DigestUpdate(context, tail, sizeof(tail)) && EVP_DigestFinal_ex(context, ret->bytes, NULL);
}

static bool root_make(struct stoker_hasher *h, const void *seed, size_t seed_bytes)
{
	uint8_t length[4];

	put32(length, h->chunk_tokens);
	return EVP_DigestInit_ex2(h->chunk, h->sha256, NULL) &&
	       EVP_DigestUpdate(h->chunk, chain_name, sizeof(chain_name)) &&
	       EVP_DigestUpdate(h->chunk, length, sizeof(length)) &&
	       (seed_bytes == 0 || EVP_DigestUpdate(h->chunk, seed, seed_bytes)) &&
	       EVP_DigestFinal_ex(h->chunk, h->root.bytes, NULL);
}

int stoker_hasher_new(uint32_t chunk_tokens, const void *seed, size_t seed_bytes, struct stoker_hasher **ret)
{
	struct stoker_hasher *h;

	if (chunk_tokens == 0 || !ret || (seed_bytes > 0 && !seed))
		return -EINVAL;
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->chunk_tokens = chunk_tokens;
	h->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	h->chunk = EVP_MD_CTX_new();
	h->extras = EVP_MD_CTX_new();
	h->copy = EVP_MD_CTX_new();
	h->partial = EVP_MD_CTX_new();
	if (!h->sha256 || !h->chunk || !h->extras || !h->copy || !h->partial || !root_make(h, seed, seed_bytes)) {
		stoker_hasher_free(h);
		return -ENOMEM;
	}
	h->parent = h->root;
	if (!chunk_begin(h)) {
		stoker_hasher_free(h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

void stoker_hasher_free(struct stoker_hasher *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->chunk);
	EVP_MD_CTX_free(h->extras);
	EVP_MD_CTX_free(h->copy);
	EVP_MD_CTX_free(h->partial);
	EVP_MD_free(h->sha256);
	free(h);
}

void stoker_hasher_restart(struct stoker_hasher *h)
{
	if (!h)
		return;
	h->parent = h->root;
	chunk_begin(h);
}

int stoker_hasher_extra(struct stoker_hasher *h, const void *bytes, size_t n)
{
	uint8_t length[8];

	if (!h || (n > 0 && !bytes))
		return -EINVAL;
	put32(length, (uint32_t)n);
	put32(length + 4, (uint32_t)((uint64_t)n >> 32));
	if (h->n_extras == 0 && !EVP_DigestInit_ex2(h->extras, h->sha256, NULL))
		return -ENOMEM;
	if (!EVP_DigestUpdate(h->extras, length, sizeof(length)) || (n > 0 && !EVP_DigestUpdate(h->extras, bytes, n)))
		return -ENOMEM;
	h->n_extras++;
	return 0;
}

int stoker_hasher_tokens(struct stoker_hasher *h, const uint32_t *tokens, size_t n, struct stoker_key *ret, size_t max)
{
	size_t keys = 0;

	if (!h || (n > 0 && !tokens) || n > INT32_MAX)
		return -EINVAL;
	if ((h->filled + n) / h->chunk_tokens > max)
		return -ENOSPC;
	if (!ret && (h->filled + n) / h->chunk_tokens > 0)
		return -EINVAL;
	while (n > 0) {
		const size_t part = n < h->chunk_tokens - h->filled ? n : h->chunk_tokens - h->filled;

		if (!tokens_update(h->chunk, tokens, part))
			return -ENOMEM;
		h->filled += (uint32_t)part;
		tokens += part;
		n -= part;
		if (h->filled < h->chunk_tokens)
			break;
		if (!chunk_end(h, h->chunk, &ret[keys]))
			return -ENOMEM;
		h->parent = ret[keys++];
		if (!chunk_begin(h))
			return -ENOMEM;
	}
	return (int)keys;
}

int stoker_hasher_tail(const struct stoker_hasher *h, struct stoker_key *ret, uint32_t *ret_tokens)
{
	if (!h || !ret || !ret_tokens)
		return -EINVAL;
	*ret_tokens = h->filled;
	if (h->filled == 0)
		return 0;
	return EVP_MD_CTX_copy_ex(h->partial, h->chunk) && chunk_end(h, h->partial, ret) ? 0 : -ENOMEM;
}
