# The installed package: find_package(attend) with attend::attend (and attend::viz), and pkg-config.
include(CMakePackageConfigHelpers)

set(attend_targets attend attend_viz)
# A static library does not bring along what it needs.
set(ATTEND_VIZ_PKGCONFIG "")
set(ATTEND_VIZ_PKGCONFIG_PRIVATE "")
if(ATTEND_WITH_VIZ AND BUILD_SHARED_LIBS)
    set(ATTEND_VIZ_PKGCONFIG_PRIVATE "pangocairo cairo-pdf cairo-png")
elseif(ATTEND_WITH_VIZ)
    set(ATTEND_VIZ_PKGCONFIG "pangocairo cairo-pdf cairo-png")
endif()
# Two sets: a program that does not draw must not need the drawing libraries to be found.
install(TARGETS attend EXPORT attend-targets FILE_SET HEADERS)
install(TARGETS attend_viz EXPORT attend-viz-targets FILE_SET HEADERS)
if(TARGET attend_command)
    install(TARGETS attend_command)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attend)
install(EXPORT attend-targets NAMESPACE attend:: DESTINATION ${package_dir})
install(EXPORT attend-viz-targets NAMESPACE attend:: DESTINATION ${package_dir})
configure_package_config_file(cmake/attend-config.cmake.in ${PROJECT_BINARY_DIR}/attend-config.cmake
    INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attend-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attend-config.cmake ${PROJECT_BINARY_DIR}/attend-config-version.cmake
    DESTINATION ${package_dir})

# Directories are absolute or relative to the prefix; pkg-config wants them joined.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR})
    set(pkgconfig_libdir ${CMAKE_INSTALL_LIBDIR})
else()
    set(pkgconfig_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
if(IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR})
    set(pkgconfig_includedir ${CMAKE_INSTALL_INCLUDEDIR})
else()
    set(pkgconfig_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
# The prefix is found from the file's own place, so that an installed tree can be moved.
file(RELATIVE_PATH pkgconfig_prefix "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
set(pkgconfig_prefix "\${pcfiledir}/${pkgconfig_prefix}")
foreach(module ${attend_targets})
    string(REPLACE "_" "-" name ${module})
    configure_file(cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
