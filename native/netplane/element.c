#include "netplane/element.h"
#include "netplane/address.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* `ordered`: its bytes compare as its values do (big-endian), which ranges need. */
static const struct {
    const char *name;
    uint8_t length;
    bool ordered;
} types[FIELD_COUNT] = {
    [FIELD_IPV4_ADDR] = {"ipv4_addr", 4, true},   [FIELD_IPV6_ADDR] = {"ipv6_addr", 16, true},
    [FIELD_ETHER_ADDR] = {"ether_addr", 6, true}, [FIELD_INET_PROTO] = {"inet_proto", 1, true},
    [FIELD_INET_SERVICE] = {"inet_service", 2, true}, [FIELD_INTEGER] = {"integer", 4, false},
    [FIELD_MARK] = {"mark", 4, false},            [FIELD_CT_ZONE] = {"ct_zone", 2, false},
    [FIELD_IFNAME] = {"ifname", IFNAMSIZ, false}, [FIELD_VERDICT] = {"verdict", 0, false},
};

static const struct {
    const char *name;
    uint8_t number;
} protocols[] = {{"icmp", IPPROTO_ICMP}, {"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"sctp", IPPROTO_SCTP}};

static const struct {
    const char *name;
    int32_t code;
} verdicts[] = {{"accept", NF_ACCEPT}, {"drop", NF_DROP}, {"return", NFT_RETURN}, {"continue", NFT_CONTINUE}};

int field_from_text(const char *name)
{
    for (int i = 0; i < FIELD_COUNT; i++)
        if (strcmp(types[i].name, name) == 0)
            return i;
    return -1;
}

bool nft_name_valid(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length < NFT_NAME_BYTES &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./") == length;
}

/* Bytes of a field inside its key or data. */
static size_t field_room(uint8_t field, size_t count)
{
    size_t length = types[field].length;
    return count > 1 ? (length + 3) / 4 * 4 : length;
}

static int sum_lengths(const uint8_t *fields, size_t count, uint8_t *out, struct error *error)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += field_room(fields[i], count);
    if (length > ELEMENT_BYTES_MAX)
        return fail(error, EINVAL, "the fields take %zu bytes, at most %d are possible", length, ELEMENT_BYTES_MAX);
    *out = (uint8_t)length;
    return 0;
}

int element_set_check(struct element_set *set, struct error *error)
{
    for (size_t i = 0; i < set->key_count; i++)
        if (set->key[i] == FIELD_VERDICT)
            return fail(error, EINVAL, "a key cannot hold a verdict");
    for (size_t i = 0; i < set->data_count; i++)
        if (set->data[i] == FIELD_VERDICT && set->data_count > 1)
            return fail(error, EINVAL, "a verdict stands alone");
    if (set->interval && set->key_count == 1 && !types[set->key[0]].ordered)
        return fail(error, EINVAL, "there are no intervals of %s", types[set->key[0]].name);
    if (sum_lengths(set->key, set->key_count, &set->key_length, error) < 0)
        return -1;
    return sum_lengths(set->data, set->data_count, &set->data_length, error);
}

static bool parse_mark(const char *text, uint32_t *out)
{
    uint64_t value = 0;
    if (strncmp(text, "0x", 2) != 0) {
        bool valid = number_from_text(text, UINT32_MAX, &value);
        *out = (uint32_t)value;
        return valid;
    }
    size_t length = strlen(text + 2);
    if (length == 0 || length > 8 || strspn(text + 2, "0123456789abcdefABCDEF") != length)
        return false;
    *out = (uint32_t)strtoul(text + 2, NULL, 16);
    return true;
}

static bool parse_protocol(const char *text, uint8_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (strcmp(protocols[i].name, text) == 0) {
            *out = protocols[i].number;
            return true;
        }
    bool valid = number_from_text(text, UINT8_MAX, &value);
    *out = (uint8_t)value;
    return valid;
}

/* One value without a range, into the first bytes of `out`. */
static bool parse_value(uint8_t field, const char *text, uint8_t *out)
{
    struct ip ip;
    struct mac mac;
    uint64_t number = 0;
    uint32_t wide;
    uint16_t narrow;
    switch ((enum field)field) {
    case FIELD_IPV4_ADDR:
    case FIELD_IPV6_ADDR:
        if (!ip_from_text(text, &ip) || ip_size(&ip) != types[field].length)
            return false;
        memcpy(out, ip.bytes, types[field].length);
        return true;
    case FIELD_ETHER_ADDR:
        if (!mac_from_text(text, &mac))
            return false;
        memcpy(out, mac.bytes, MAC_BYTES);
        return true;
    case FIELD_INET_PROTO:
        return parse_protocol(text, out);
    case FIELD_INET_SERVICE:
    case FIELD_CT_ZONE:
        if (!number_from_text(text, UINT16_MAX, &number))
            return false;
        narrow = field == FIELD_INET_SERVICE ? htons((uint16_t)number) : (uint16_t)number;
        memcpy(out, &narrow, sizeof narrow);
        return true;
    case FIELD_INTEGER:
        if (!number_from_text(text, UINT32_MAX, &number))
            return false;
        wide = (uint32_t)number;
        memcpy(out, &wide, sizeof wide);
        return true;
    case FIELD_MARK:
        if (!parse_mark(text, &wide))
            return false;
        memcpy(out, &wide, sizeof wide);
        return true;
    case FIELD_IFNAME:
        if (*text == '\0' || strlen(text) >= IFNAMSIZ)
            return false;
        for (size_t i = 0; text[i] != '\0'; i++)
            out[i] = (uint8_t)text[i]; /* what follows is zero already */
        return true;
    case FIELD_VERDICT:
    case FIELD_COUNT:
        return false;
    }
    return false;
}

/* Sets the bits after the first `bits` to `ones` or to zero. */
static void fill_bits(uint8_t *bytes, size_t length, size_t bits, bool ones)
{
    for (size_t i = 0; i < length; i++) {
        size_t kept = bits <= i * 8 ? 0 : bits - i * 8 >= 8 ? 8 : bits - i * 8;
        uint8_t rest = (uint8_t)(0xff >> kept);
        bytes[i] = ones ? bytes[i] | rest : (uint8_t)(bytes[i] & ~rest);
    }
}

/* "a", "a/bits" or "a-b". A prefix must not have bits after its length: two spellings would be one element. */
static bool parse_range(uint8_t field, char *text, uint8_t *start, uint8_t *end)
{
    uint8_t length = types[field].length;
    char *mark = strpbrk(text, "/-");
    if (mark == NULL || !types[field].ordered) {
        bool valid = parse_value(field, text, start);
        memcpy(end, start, length);
        return valid;
    }
    bool prefix = *mark == '/';
    *mark = '\0';
    if (!parse_value(field, text, start))
        return false;
    if (!prefix)
        return parse_value(field, mark + 1, end) && memcmp(start, end, length) <= 0;
    uint64_t bits = 0;
    uint8_t cleared[IP_BYTES_MAX] = {0};
    if ((field != FIELD_IPV4_ADDR && field != FIELD_IPV6_ADDR) || !number_from_text(mark + 1, length * 8u, &bits))
        return false;
    memcpy(cleared, start, length);
    fill_bits(cleared, length, bits, false);
    memcpy(end, start, length);
    fill_bits(end, length, bits, true);
    return memcmp(cleared, start, length) == 0;
}

static int parse_fields(const uint8_t *fields, size_t count, char *text, bool interval, uint8_t *start, uint8_t *end,
                        struct error *error)
{
    for (size_t i = 0; i < count; i++) {
        char *mark = i + 1 < count ? strstr(text, " . ") : NULL;
        if (i + 1 < count && mark == NULL)
            return fail(error, EINVAL, "%zu fields are missing after \"%s\"", count - i - 1, text);
        if (mark != NULL)
            *mark = '\0';
        if (strchr(text, ' ') != NULL ||
            !(interval ? parse_range(fields[i], text, start, end) : parse_value(fields[i], text, start)))
            return fail(error, EINVAL, "\"%s\" is no %s", text, types[fields[i]].name);
        size_t room = field_room(fields[i], count);
        if (!interval)
            memcpy(end, start, room);
        start += room;
        end += room;
        if (mark != NULL)
            text = mark + 3;
    }
    return 0;
}

static int parse_verdict(const char *text, struct element *out, struct error *error)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        if (strcmp(verdicts[i].name, text) == 0) {
            out->verdict = verdicts[i].code;
            return 0;
        }
    bool jumps = strncmp(text, "jump ", 5) == 0;
    if ((!jumps && strncmp(text, "goto ", 5) != 0) || !nft_name_valid(text + 5))
        return fail(error, EINVAL, "\"%s\" is no verdict", text);
    out->verdict = jumps ? NFT_JUMP : NFT_GOTO;
    snprintf(out->chain, sizeof out->chain, "%s", text + 5);
    return 0;
}

int element_parse(const struct element_set *set, const char *text, bool with_data, struct element *out,
                  struct error *error)
{
    char copy[ELEMENT_TEXT_MAX];
    size_t length = strlen(text);
    if (length >= sizeof copy)
        return fail(error, EINVAL, "an element has %zu characters, at most %zu are accepted", length, sizeof copy - 1);
    memcpy(copy, text, length + 1);
    memset(out->key, 0, set->key_length);
    memset(out->key_end, 0, set->key_length);
    memset(out->data, 0, set->data_length);
    out->verdict = 0;
    out->chain[0] = '\0';
    char *mark = strstr(copy, " : ");
    bool wants = with_data && set->data_count > 0;
    if ((mark != NULL) != wants)
        return fail(error, EINVAL, wants ? "element \"%.100s\" maps to nothing" : "element \"%.100s\" has data", text);
    if (mark != NULL)
        *mark = '\0';
    if (parse_fields(set->key, set->key_count, copy, set->interval, out->key, out->key_end, error) < 0)
        return fail_in(error, "element \"%.100s\"", text);
    if (!wants)
        return 0;
    uint8_t unused[ELEMENT_BYTES_MAX];
    if ((set->data[0] == FIELD_VERDICT ? parse_verdict(mark + 3, out, error)
                                       : parse_fields(set->data, set->data_count, mark + 3, false, out->data, unused, error)) < 0)
        return fail_in(error, "element \"%.100s\"", text);
    return 0;
}

static void print_value(uint8_t field, const uint8_t *bytes, struct text *out)
{
    char address[INET6_ADDRSTRLEN];
    uint32_t wide;
    uint16_t narrow;
    switch ((enum field)field) {
    case FIELD_IPV4_ADDR:
    case FIELD_IPV6_ADDR:
        if (inet_ntop(field == FIELD_IPV4_ADDR ? AF_INET : AF_INET6, bytes, address, sizeof address) != NULL)
            text_puts(out, address);
        return;
    case FIELD_ETHER_ADDR:
        text_puts(out, mac_to_text(bytes, address));
        return;
    case FIELD_INET_PROTO:
        for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
            if (protocols[i].number == bytes[0]) {
                text_puts(out, protocols[i].name);
                return;
            }
        text_format(out, "%u", bytes[0]);
        return;
    case FIELD_INET_SERVICE:
    case FIELD_CT_ZONE:
        memcpy(&narrow, bytes, sizeof narrow);
        text_format(out, "%u", field == FIELD_INET_SERVICE ? ntohs(narrow) : narrow);
        return;
    case FIELD_INTEGER:
    case FIELD_MARK:
        memcpy(&wide, bytes, sizeof wide);
        text_format(out, field == FIELD_MARK ? "0x%08x" : "%u", wide);
        return;
    case FIELD_IFNAME:
        text_put(out, (const char *)bytes, strnlen((const char *)bytes, IFNAMSIZ));
        return;
    case FIELD_VERDICT:
    case FIELD_COUNT:
        return;
    }
}

/* The length of the prefix that the two ends are, or -1. */
static int prefix_bits(const uint8_t *start, const uint8_t *end, size_t length)
{
    size_t bits = 0;
    while (bits < length * 8 && ((start[bits / 8] ^ end[bits / 8]) & (0x80 >> bits % 8)) == 0)
        bits++;
    uint8_t low[IP_BYTES_MAX], high[IP_BYTES_MAX];
    memcpy(low, start, length);
    memcpy(high, end, length);
    fill_bits(low, length, bits, false);
    fill_bits(high, length, bits, true);
    return memcmp(low, start, length) == 0 && memcmp(high, end, length) == 0 ? (int)bits : -1;
}

static void print_fields(const uint8_t *fields, size_t count, const uint8_t *start, const uint8_t *end, struct text *out)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t length = types[fields[i]].length;
        bool address = fields[i] == FIELD_IPV4_ADDR || fields[i] == FIELD_IPV6_ADDR;
        if (i > 0)
            text_puts(out, " . ");
        print_value(fields[i], start, out);
        if (memcmp(start, end, length) != 0) {
            int bits = address ? prefix_bits(start, end, length) : -1;
            if (bits >= 0) {
                text_format(out, "/%d", bits);
            } else {
                text_put(out, "-", 1);
                print_value(fields[i], end, out);
            }
        }
        start += field_room(fields[i], count);
        end += field_room(fields[i], count);
    }
}

void element_print(const struct element_set *set, const struct element *element, bool with_data, struct text *out)
{
    print_fields(set->key, set->key_count, element->key, element->key_end, out);
    if (!with_data || set->data_count == 0)
        return;
    text_puts(out, " : ");
    if (set->data[0] != FIELD_VERDICT) {
        print_fields(set->data, set->data_count, element->data, element->data, out);
        return;
    }
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        if (verdicts[i].code == element->verdict)
            text_puts(out, verdicts[i].name);
    if (element->verdict == NFT_GOTO || element->verdict == NFT_JUMP) {
        text_puts(out, element->verdict == NFT_GOTO ? "goto " : "jump ");
        text_puts(out, element->chain);
    }
}

bool bytes_increment(uint8_t *bytes, size_t length)
{
    for (size_t i = length; i-- > 0;)
        if (++bytes[i] != 0)
            return true;
    return false;
}

bool bytes_decrement(uint8_t *bytes, size_t length)
{
    for (size_t i = length; i-- > 0;)
        if (bytes[i]-- != 0)
            return true;
    return false;
}
