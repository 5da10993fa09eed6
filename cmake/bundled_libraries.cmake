# What translation needs, put into the program that links attend_models, so that it runs where none of it is installed:
# yaml-cpp and ICU as archives, with ICU's data of breaks alone (3 MB instead of 30). SentencePiece, of which Debian has
# no archive, stays a library that has to lie beside the program (ATTEND_SENTENCEPIECE_FILE).
find_library(ATTEND_YAML_ARCHIVE libyaml-cpp.a REQUIRED)
find_library(ATTEND_ICU_ARCHIVE libicuuc.a REQUIRED)
find_library(ATTEND_ICU_DATA_ARCHIVE libicudata.a REQUIRED)
find_library(ATTEND_SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
find_program(ATTEND_ICUPKG icupkg PATHS /usr/sbin REQUIRED)
get_filename_component(ATTEND_SENTENCEPIECE_FILE ${ATTEND_SENTENCEPIECE_LIBRARY} REALPATH)

enable_language(C ASM)
set(icu_folder ${CMAKE_BINARY_DIR}/icu)
add_custom_command(OUTPUT ${icu_folder}/breaks.S
    COMMAND ${CMAKE_COMMAND} -DICUPKG=${ATTEND_ICUPKG} -DAR=${CMAKE_AR} -DOBJCOPY=${CMAKE_OBJCOPY}
        -DARCHIVE=${ATTEND_ICU_DATA_ARCHIVE} -DFOLDER=${icu_folder} -P ${CMAKE_CURRENT_LIST_DIR}/icu_breaks.cmake
    DEPENDS ${ATTEND_ICU_DATA_ARCHIVE} ${CMAKE_CURRENT_LIST_DIR}/icu_breaks.cmake VERBATIM)
add_library(attend_icu_data STATIC ${icu_folder}/breaks.S ${CMAKE_CURRENT_LIST_DIR}/icu_time_zone.c)

add_library(attend_bundled INTERFACE)
target_link_libraries(attend_bundled INTERFACE ${ATTEND_SENTENCEPIECE_LIBRARY} ${ATTEND_YAML_ARCHIVE}
    ${ATTEND_ICU_ARCHIVE} attend_icu_data)
