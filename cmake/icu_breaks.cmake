# Writes FOLDER/breaks.S: ICU's data of breaks alone, out of the archive with all of it.
file(REMOVE_RECURSE ${FOLDER})
file(MAKE_DIRECTORY ${FOLDER}/all)
function(run)
    execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${FOLDER}/all COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE output)
    set(output "${output}" PARENT_SCOPE)
endfunction()

run(${AR} x ${ARCHIVE})
file(GLOB object ${FOLDER}/all/*_dat.o)
get_filename_component(name ${object} NAME_WE)
string(REPLACE "_dat" "" package ${name})              # icudt72l
string(REGEX REPLACE "[a-z]$" "" symbol ${package})    # icudt72, of which icudt72_dat is made
run(${OBJCOPY} -O binary -j .rodata ${object} ${package}.dat)
run(${ICUPKG} -l ${package}.dat)
string(REGEX REPLACE "(^|\n)brkitr/[^\n]*" "\\1" others "${output}")
file(WRITE ${FOLDER}/all/others.txt "${others}")
# Names of entries begin with that of the file, which must stay what it is.
run(${ICUPKG} -r others.txt ${package}.dat ${FOLDER}/${package}.dat)
file(REMOVE_RECURSE ${FOLDER}/all)
file(WRITE ${FOLDER}/breaks.S ".section .rodata
.balign 16
.globl ${symbol}_dat
.hidden ${symbol}_dat
${symbol}_dat:
.incbin \"${FOLDER}/${package}.dat\"
.section .note.GNU-stack,\"\",@progbits
")
