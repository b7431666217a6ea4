#include "netplane/address.h"

#include <stdio.h>
#include <string.h>

bool ip_from_text(const char *text, struct ip *out)
{
    *out = (struct ip){.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET};
    return inet_pton(out->family, text, out->bytes) == 1;
}

bool number_from_text(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
        return false;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || value > (UINT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*at - '0');
    }
    *out = value;
    return value <= max;
}

bool prefix_from_text(const char *text, struct prefix *out)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t length = slash == NULL ? strlen(text) : (size_t)(slash - text);
    if (length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    if (!ip_from_text(address, &out->ip))
        return false;
    uint64_t bits = ip_bits(&out->ip);
    if (slash != NULL && !number_from_text(slash + 1, bits, &bits))
        return false;
    out->length = (uint8_t)bits;
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool mac_from_text(const char *text, struct mac *out)
{
    *out = (struct mac){.set = true};
    for (size_t i = 0; i < MAC_BYTES; i++) {
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0 || text[2] != (i + 1 < MAC_BYTES ? ':' : '\0'))
            return false;
        out->bytes[i] = (uint8_t)(high << 4 | low);
        text += 3;
    }
    return true;
}

const char *ip_to_text(const struct ip *ip, char out[static INET6_ADDRSTRLEN])
{
    if (inet_ntop(ip->family, ip->bytes, out, INET6_ADDRSTRLEN) == NULL)
        out[0] = '\0';
    return out;
}

const char *prefix_to_text(const struct prefix *prefix, char out[static PREFIX_TEXT_MAX])
{
    char address[INET6_ADDRSTRLEN];
    snprintf(out, PREFIX_TEXT_MAX, "%s/%u", ip_to_text(&prefix->ip, address), prefix->length);
    return out;
}

const char *mac_to_text(const uint8_t bytes[static MAC_BYTES], char out[static MAC_TEXT_MAX])
{
    snprintf(out, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]);
    return out;
}
