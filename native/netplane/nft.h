/*
 * Elements of nftables sets and maps by raw netlink: a transaction of a few elements takes microseconds, whatever the size of
 * the set. So does a chain that balances; other chains, tables and rules are text for libnftables (ruleset.h).
 */
#ifndef NETPLANE_NFT_H
#define NETPLANE_NFT_H

#include "netplane/netlink.h"
#include "netplane/request.h"
#include "netplane/text.h"

/* The transaction under way: the first message opens it. */
int nft_put_elements(struct outgoing *out, const struct operation *operation, uint32_t owner, struct error *error);
/* A chain with one rule, which stands in the same transaction as the elements that lead to it. */
int nft_put_balance(struct outgoing *out, const struct balance_fields *balance, uint32_t owner, struct error *error);
/* A chain without a hook, with its rules; what led to it is gone, or goes earlier in the same transaction. */
int nft_put_chain_deletion(struct outgoing *out, const struct balance_fields *chain, uint32_t owner, struct error *error);
/*
 * Ends and commits it. `operations` by owner tell what is fine; on failure *owner is the operation at fault.
 * *generation: the rules' number as it was last known, and what it is by this very change; 0: not known.
 */
int nft_commit(struct netlink *filter, struct outgoing *out, const struct operation *operations, uint32_t *generation,
               uint32_t *owner, struct error *error);

/* A JSON array of strings. */
int nft_list_elements(struct netlink *filter, const struct element_set *set, struct text *out, struct error *error);
int nft_generation(struct netlink *filter, uint32_t *out, struct error *error);

#endif
