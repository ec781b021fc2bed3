# Installs the shared libraries that the package's binaries need into pagemill/lib, each under the name that the loader
# asks for (a wheel has no symbolic links). glibc and gcc's runtime are every system's own.
file(GET_RUNTIME_DEPENDENCIES
  EXECUTABLES ${pm_programs}
  MODULES ${pm_modules}
  RESOLVED_DEPENDENCIES_VAR pm_libraries
  PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|pthread|stdc\\+\\+|gcc_s)\\.so")
foreach(pm_library ${pm_libraries})
  get_filename_component(pm_name ${pm_library} NAME)
  get_filename_component(pm_file ${pm_library} REALPATH)
  file(INSTALL DESTINATION ${CMAKE_INSTALL_PREFIX}/pagemill/lib TYPE FILE RENAME ${pm_name} FILES ${pm_file})
endforeach()
