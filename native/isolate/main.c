#include "monitor/monitor.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main(argc - 1, argv + 1);
    return 1;
}
