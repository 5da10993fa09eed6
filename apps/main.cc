#include "commands.h"
#include "heap.h"

#include <cstdio>
#include <new>

int main(int argc, char** argv) {
    try {
        attend::apps::prepare_heap();
        return attend::apps::run_command(argc, argv);
    } catch (const std::bad_alloc&) {  // before the command's options could be told
        static_cast<void>(std::fputs("attend: error: expected enough memory to begin, found none left\n", stderr));
        return 1;
    }
}
