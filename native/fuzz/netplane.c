/*
 * Requests to netplane: whatever comes, decoding stays in bounds; what is accepted becomes messages; each element that is
 * accepted prints to a text that is accepted again and means the same. Then the same bytes as what a kernel might tell.
 */
#include "netplane/links.h"
#include "netplane/nft.h"
#include "netplane/request.h"
#include "netplane/wireguard.h"

#include <stdlib.h>
#include <string.h>

static void check_element(const struct element_set *set, const char *text, bool with_data)
{
    struct element first = {0}, second = {0};
    struct error error;
    struct text printed = {0};
    if (element_parse(set, text, with_data, &first, &error) < 0)
        abort(); /* it was accepted before */
    element_print(set, &first, with_data, &printed);
    text_put(&printed, "", 1);
    if (printed.failed || element_parse(set, printed.bytes, with_data, &second, &error) < 0 ||
        memcmp(first.key, second.key, set->key_length) != 0 || memcmp(first.key_end, second.key_end, set->key_length) != 0 ||
        (with_data && (memcmp(first.data, second.data, set->data_length) != 0 || first.verdict != second.verdict ||
                       strcmp(first.chain, second.chain) != 0)))
        abort();
    text_release(&printed);
}

static void check_list(const struct element_set *set, const struct value *list, bool with_data)
{
    for (const struct value *item = value_first(list); item != NULL; item = item->next)
        check_element(set, item->string, with_data);
}

static void build(const struct operation *operation, struct outgoing *out)
{
    struct message_context context = {.link = 1, .master = 2, .lower = 4, .namespace_fd = 3};
    struct error error;
    switch (operation->kind) {
    case OP_LINK_ADD:
        put_link_add(out, &operation->link, &context);
        break;
    case OP_LINK_SET:
        put_link_set(out, &operation->link, &context);
        break;
    case OP_ADDRESS_SET:
        put_address(out, &operation->address, false, &context);
        break;
    case OP_ROUTE_ADD:
    case OP_ROUTE_REPLACE:
    case OP_ROUTE_DELETE:
        put_route(out, &operation->route, operation->kind, &context);
        break;
    case OP_NEIGHBOUR_SET:
        put_neighbour(out, &operation->neighbour, false, &context);
        break;
    case OP_FDB_SET:
        put_fdb(out, &operation->neighbour, false, &context);
        break;
    case OP_RULE_ADD:
        put_rule(out, &operation->rule, false, &context);
        break;
    case OP_ELEMENTS:
        check_list(operation->elements.set, operation->elements.remove, false);
        check_list(operation->elements.set, operation->elements.add, true);
        if (nft_put_elements(out, operation, 0, &error) < 0)
            abort();
        break;
    case OP_BALANCE:
        if (nft_put_balance(out, &operation->balance, 0, &error) < 0)
            abort();
        break;
    case OP_CHAIN_DELETE:
        if (nft_put_chain_deletion(out, &operation->balance, 0, &error) < 0)
            abort();
        break;
    case OP_LINK_SETTLE:
        put_link_settle(out, operation->link.name, 0);
        break;
    case OP_WIREGUARD_SET:
        put_wireguard_set(out, 30, &operation->tunnel, 0);
        break;
    case OP_WIREGUARD_PEER_SET:
    case OP_WIREGUARD_PEER_DELETE:
        put_wireguard_peer(out, 30, &operation->tunnel, operation->kind == OP_WIREGUARD_PEER_DELETE, 0);
        break;
    default:
        break;
    }
}

static void check_messages(const struct outgoing *out)
{
    size_t end = 0;
    for (size_t i = 0; i < out->count; i++) {
        const struct nlmsghdr *message = (const struct nlmsghdr *)(out->bytes + out->places[i].offset);
        if (out->places[i].offset != end || message->nlmsg_len < MESSAGE_HEADER)
            abort();
        end += align4(message->nlmsg_len);
    }
    if (end != out->length)
        abort();
}

static void tell(const uint8_t *data, size_t size)
{
    struct link_row row;
    struct nlmsghdr header = {.nlmsg_len = (uint32_t)(MESSAGE_HEADER + size)};
    uint8_t *message = malloc(MESSAGE_HEADER + size);
    if (message == NULL)
        return;
    memcpy(message, &header, sizeof header);
    memcpy(message + MESSAGE_HEADER, data, size);
    (void)read_link((const struct nlmsghdr *)message, &row);
    struct text peers = {0};
    struct tunnel_listing listing = {.peers = &peers};
    struct error error;
    (void)wireguard_read(&listing, (const struct nlmsghdr *)message, &error);
    text_release(&peers);
    free(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct request request;
    struct error error = {0};
    struct outgoing out = {0};
    if (size > 0 && size < 4096)
        tell(data, size);
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    int result = request_decode(text, size, &request, &error);
    if (result < 0 && (error.number == 0 || error.text[0] == '\0'))
        abort();
    for (size_t i = 0; result == 0 && i < request.operations_count; i++)
        build(&request.operations[i], &out);
    if (!out.failed)
        check_messages(&out);
    out_release(&out);
    request_release(&request);
    free(text);
    return 0;
}
