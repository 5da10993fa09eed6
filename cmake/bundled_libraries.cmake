# What translation needs, so that a program runs where none of it is installed: ICU as archives, with its data of breaks
# alone (3 MB instead of 30). Of SentencePiece Debian has no archive, and that of yaml-cpp cannot go into a shared object:
# both stay libraries that have to lie beside the program (ATTEND_BUNDLED_FILES, under the names that it asks for).
find_library(ATTEND_ICU_ARCHIVE libicuuc.a REQUIRED)
find_library(ATTEND_ICU_DATA_ARCHIVE libicudata.a REQUIRED)
find_library(ATTEND_SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
find_library(ATTEND_YAML_LIBRARY yaml-cpp REQUIRED)
find_program(ATTEND_ICUPKG icupkg PATHS /usr/sbin REQUIRED)

set(ATTEND_BUNDLED_FILES "")
foreach(library ${ATTEND_SENTENCEPIECE_LIBRARY} ${ATTEND_YAML_LIBRARY})
    execute_process(COMMAND ${CMAKE_OBJDUMP} -p ${library} OUTPUT_VARIABLE headers COMMAND_ERROR_IS_FATAL ANY)
    string(REGEX MATCH "SONAME +([^\n ]+)" found "${headers}")
    get_filename_component(folder ${library} DIRECTORY)
    list(APPEND ATTEND_BUNDLED_FILES ${folder}/${CMAKE_MATCH_1})
endforeach()

enable_language(C ASM)
set(icu_folder ${CMAKE_BINARY_DIR}/icu)
add_custom_command(OUTPUT ${icu_folder}/breaks.S
    COMMAND ${CMAKE_COMMAND} -DICUPKG=${ATTEND_ICUPKG} -DAR=${CMAKE_AR} -DOBJCOPY=${CMAKE_OBJCOPY}
        -DARCHIVE=${ATTEND_ICU_DATA_ARCHIVE} -DFOLDER=${icu_folder} -P ${CMAKE_CURRENT_LIST_DIR}/icu_breaks.cmake
    DEPENDS ${ATTEND_ICU_DATA_ARCHIVE} ${CMAKE_CURRENT_LIST_DIR}/icu_breaks.cmake VERBATIM)
add_library(attend_icu_data STATIC ${icu_folder}/breaks.S ${CMAKE_CURRENT_LIST_DIR}/icu_time_zone.c
    ${CMAKE_CURRENT_LIST_DIR}/icu_call_once.c)

add_library(attend_bundled INTERFACE)
target_link_libraries(attend_bundled INTERFACE ${ATTEND_SENTENCEPIECE_LIBRARY} ${ATTEND_YAML_LIBRARY}
    ${ATTEND_ICU_ARCHIVE} attend_icu_data)
