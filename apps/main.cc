#include "commands.h"
#include "heap.h"

int main(int argc, char** argv) {
    attend::apps::prepare_heap();
    return attend::apps::run_command(argc, argv);
}
