// A program of somebody who translates. Without a model it is told what was expected.
#include <attend/tasks/translator.h>

#include <attend/core/error.h>

#include <cstdio>
#include <string>

int main() {
    try {
        attend::Translator::from_pretrained("/nowhere");
    } catch (const attend::FileError& error) {
        std::printf("%s\n", error.what());
        return std::string(error.what()).find("/nowhere") == std::string::npos ? 1 : 0;
    }
    return 1;
}
